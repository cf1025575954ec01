"""Writes one LLVM function as text: names, labels, loops, vectors and calls of intrinsics."""

import math
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager

from ..tile.types import I1, I8, I32, I64, Elem

_SUFFIX = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
_LINE_BYTES = 64  # of the caches


def vector(elem: Elem, lanes: int) -> str:
    """The LLVM type of `lanes` elements; a scalar for 0."""
    return f"<{lanes} x {elem.llvm}>" if lanes else elem.llvm


def memory_vector(elem: Elem, lanes: int) -> str:
    """The same as it lies in memory, where a truth value is a byte."""
    return f"<{lanes} x {elem.memory}>" if lanes else elem.memory


def mangle(elem: Elem, lanes: int) -> str:
    """How LLVM spells the type in the name of an intrinsic."""
    return (f"v{lanes}" if lanes else "") + _SUFFIX.get(elem.llvm, elem.llvm)


def literal(value: int | float, elem: Elem) -> str:
    """A constant of `elem` as LLVM text."""
    if elem.is_pointer:
        return "null" if value == 0 else f"inttoptr (i64 {int(value)} to ptr)"
    if elem.bits == 1:
        return "true" if value else "false"
    if not elem.is_float:
        return str(int(value))
    if elem.name == "f64":
        return _hex(float(value))
    if elem.name == "f32":
        return _hex(_round(float(value), "f"))
    if elem.name == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', _clamp_half(float(value))))[0]:04X}"
    bits = struct.unpack("<I", struct.pack("<f", _round(float(value), "f")))[0]
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 if value == value else 0x7FC0
    return f"0xR{nearest:04X}"


def _hex(value: float) -> str:
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _round(value: float, code: str) -> float:
    try:
        return struct.unpack(f"<{code}", struct.pack(f"<{code}", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _clamp_half(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= 65520 else value


class Writer:
    """The text of a function under construction, and what the module must declare for it."""

    def __init__(self, features: frozenset[str] = frozenset()) -> None:
        self.features = features
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.declarations: dict[str, str] = {}
        self.functions: dict[str, str] = {}  # helpers defined once a module
        self.globals: dict[str, str] = {}
        self.label_now = "entry"
        self._count = 0

    def inner(self) -> "Writer":
        """A writer for a helper function of the same module."""
        other = Writer(self.features)
        other.declarations, other.functions = self.declarations, self.functions
        other.globals = self.globals
        return other

    def name(self, stem: str = "t") -> str:
        """A fresh name, without sigil."""
        self._count += 1
        return f"{stem}{self._count}"

    def let(self, expression: str) -> str:
        """`%fresh = expression`; gives the name."""
        name = f"%{self.name()}"
        self.lines.append(f"  {name} = {expression}")
        return name

    def do(self, statement: str) -> None:
        """A statement without a result."""
        self.lines.append(f"  {statement}")

    def label(self, name: str) -> None:
        """Begins a basic block."""
        self.lines.append(f"{name}:")
        self.label_now = name

    def jump(self, name: str) -> None:
        """Ends the basic block."""
        self.do(f"br label %{name}")

    def jump_back(self, name: str, hoist: bool) -> None:
        """Closes a loop; with `hoist` false LLVM moves nothing out of it."""
        if hoist:
            self.jump(name)
            return
        number = len(self.globals)
        text = f'!{number} = distinct !{{!{number}, !{{!"llvm.licm.disable"}}}}'
        self.globals[f"loop {number}"] = text
        self.do(f"br label %{name}, !llvm.loop !{number}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        """Ends the basic block with a choice."""
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")

    def declare(self, name: str, text: str) -> None:
        """Makes the module declare a function, once."""
        self.declarations.setdefault(name, text)

    def alloca(self, kind: str, align: int = 64) -> str:
        """Memory of this function, live while it runs."""
        name = f"%{self.name('a')}"
        self.allocas.append(f"  {name} = alloca {kind}, align {align}")
        return name

    @contextmanager
    def loop(self, count: int, step: int = 1) -> Generator[str]:
        """A loop over 0, step, … below `count`; yields the i32 index. No code for one turn."""
        if count <= step:
            yield "0"
            return
        stem = self.name("loop")
        before, index, following = self.label_now, f"%{stem}.i", f"%{stem}.n"
        self.jump(stem)
        self.label(stem)
        self.do(f"{index} = phi i32 [ 0, %{before} ], [ {following}, %{stem}.next ]")
        yield index
        self.jump(f"{stem}.next")
        self.label(f"{stem}.next")
        self.do(f"{following} = add nuw nsw i32 {index}, {step}")
        again = self.let(f"icmp slt i32 {following}, {count}")
        self.branch(again, stem, f"{stem}.end")
        self.label(f"{stem}.end")

    @contextmanager
    def span(self, first: str, end: str, step: int) -> Generator[str]:
        """A loop over `first`, `first` + step, … below `end`, which may be none; yields the index,
        as i32 like both."""
        stem, before = self.name("span"), self.label_now
        index, following = f"%{stem}.i", f"%{stem}.n"
        self.jump(stem)
        self.label(stem)
        self.do(f"{index} = phi i32 [ {first}, %{before} ], [ {following}, %{stem}.next ]")
        self.branch(self.let(f"icmp slt i32 {index}, {end}"), f"{stem}.turn", f"{stem}.end")
        self.label(f"{stem}.turn")
        yield index
        self.jump(f"{stem}.next")
        self.label(f"{stem}.next")
        self.do(f"{following} = add nuw nsw i32 {index}, {step}")
        self.jump(stem)
        self.label(f"{stem}.end")

    @contextmanager
    def when(self, condition: str | None) -> Generator[None]:
        """Code that runs if `condition` holds; None means always."""
        if condition is None or condition == "true":
            yield
            return
        stem = self.name("if")
        self.branch(condition, stem, f"{stem}.end")
        self.label(stem)
        yield
        self.jump(f"{stem}.end")
        self.label(f"{stem}.end")

    def choose(
        self, condition: str, yes: Callable[[], str], no: Callable[[], str], kind: str
    ) -> str:
        """The result of `yes` or of `no`, only one of which runs."""
        stem = self.name("pick")
        self.branch(condition, f"{stem}.yes", f"{stem}.no")
        results: list[str] = []
        for name, write in (("yes", yes), ("no", no)):
            self.label(f"{stem}.{name}")
            value = write()
            results.append(f"[ {value}, %{self.label_now} ]")
            self.jump(f"{stem}.end")
        self.label(f"{stem}.end")
        return self.let(f"phi {kind} {', '.join(results)}")

    # Vectors

    def splat(self, elem: Elem, value: str, lanes: int) -> str:
        """`value` in every lane; `value` itself for a scalar."""
        if not lanes or value in ("poison", "zeroinitializer"):
            return value
        if not value.startswith("%"):
            return f"splat ({elem.llvm} {value})"
        kind = vector(elem, lanes)
        first = self.let(f"insertelement {kind} poison, {elem.llvm} {value}, i32 0")
        return self.let(
            f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def constant(self, value: int | float, elem: Elem, lanes: int) -> str:
        """A constant in every lane."""
        return self.splat(elem, literal(value, elem), lanes)

    def counting(self, elem: Elem, step: int, lanes: int) -> str:
        """The constant 0, step, 2·step, …"""
        return "<" + ", ".join(f"{elem.llvm} {i * step}" for i in range(lanes)) + ">"

    def lane(self, elem: Elem, value: str, lanes: int, index: int | str) -> str:
        """One element of a vector."""
        return self.let(f"extractelement {vector(elem, lanes)} {value}, i32 {index}")

    def shuffle(self, elem: Elem, a: str, b: str, lanes: int, picks: list[int]) -> str:
        """The elements `picks` of a and b, one behind the other."""
        kind = vector(elem, lanes)
        mask = ", ".join(f"i32 {pick}" for pick in picks)
        return self.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(picks)} x i32> <{mask}>")

    def intrinsic(self, name: str, elem: Elem, lanes: int, *args: str, flags: str = "") -> str:
        """A call of an LLVM intrinsic whose arguments and result have one type."""
        kind = vector(elem, lanes)
        full = f"llvm.{name}.{mangle(elem, lanes)}"
        self.declare(full, f"declare {kind} @{full}({', '.join([kind] * len(args))})")
        given = ", ".join(f"{kind} {arg}" for arg in args)
        return self.let(f"call {flags}{kind} @{full}({given})")

    def convert(self, how: str, value: str, source: Elem, target: Elem, lanes: int) -> str:
        """One of LLVM's conversions; nothing if the types are the same."""
        if source.llvm == target.llvm:
            return value
        return self.let(f"{how} {vector(source, lanes)} {value} to {vector(target, lanes)}")

    # Memory

    def to_memory(self, elem: Elem, value: str, lanes: int) -> str:
        """A register value as it is stored."""
        return self.convert("zext", value, I1, I8, lanes) if elem.bits == 1 else value

    def from_memory(self, elem: Elem, value: str, lanes: int) -> str:
        """A stored value as it is computed with."""
        return self.convert("trunc", value, I8, I1, lanes) if elem.bits == 1 else value

    def load(self, elem: Elem, address: str, lanes: int = 0) -> str:
        """Loads contiguous elements."""
        kind = memory_vector(elem, lanes)
        loaded = self.let(f"load {kind}, ptr {address}, align {elem.size_bytes}")
        return self.from_memory(elem, loaded, lanes)

    def store(self, elem: Elem, value: str, address: str, lanes: int = 0) -> None:
        """Stores contiguous elements."""
        stored = self.to_memory(elem, value, lanes)
        kind = memory_vector(elem, lanes)
        self.do(f"store {kind} {stored}, ptr {address}, align {elem.size_bytes}")

    def fetch(self, address: str, size_bytes: int, *, write: bool) -> None:
        """Asks for the cache lines of that many bytes, which are loaded soon, or stored to."""
        self.declare("llvm.prefetch.p0", "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for first in range(0, size_bytes, _LINE_BYTES):
            place = self.let(f"getelementptr i8, ptr {address}, i64 {first}")
            self.do(f"call void @llvm.prefetch.p0(ptr {place}, i32 {int(write)}, i32 3, i32 1)")

    def offset(self, elem: Elem, address: str, index: str, index_elem: Elem = I64) -> str:
        """The address of element `index` behind `address`."""
        if index == "0":
            return address
        wide = self.wide(index) if index_elem is I32 else index
        return self.let(f"getelementptr {elem.memory}, ptr {address}, i64 {wide}")

    def element(self, elem: Elem, base: str, row: str, stride: str, column: str) -> str:
        """The address of an element of a matrix at `base`, of `stride` elements from row to row."""
        line = self.let(f"mul nsw i64 {self.wide(row)}, {stride}")
        return self.offset(elem, base, self.let(f"add nsw i64 {line}, {self.wide(column)}"))

    def wide(self, index: str) -> str:
        """An i32 as i64."""
        return self.convert("sext", index, I32, I64, 0) if index.startswith("%") else index

    def string(self, text: str) -> str:
        """The address of a constant, zero-terminated UTF-8 string."""
        data = text.encode()
        if text not in self.globals:
            name = f"@text{len(self.globals)}"
            body = "".join(f"\\{byte:02X}" for byte in [*data, 0])
            kind = f"[{len(data) + 1} x i8]"
            self.globals[text] = f'{name} = private unnamed_addr constant {kind} c"{body}"'
        return self.globals[text].split(" ")[0]
