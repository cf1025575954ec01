"""TTIR ops → tile ops: names, attributes and constants are made plain, device functions inlined."""

import re
import struct
from typing import Any

from ..errors import UnsupportedOp
from .mlir import MlirBlock, MlirOp, read_module
from .names import (
    ATOMIC_OPS,
    ELEMENTWISE_NAMES,
    FLOAT_COMPARISONS,
    INTEGER_COMPARISONS,
    STRUCTURAL_NAMES,
)
from .ops import Block, Function, Location, Module, Op, Region, Value
from .types import Elem, Type, parse_type


def translate(text: str, entry: str) -> Module:
    """The tile module of `text`, TTIR in generic form; `entry` names the kernel."""
    functions = {
        str(op.attrs["sym_name"]): op
        for op in read_module(text).regions[0][0].ops
        if op.name == "tt.func"
    }
    return Module(entry, {entry: _Translator(functions).function(functions[entry])})


def constant(value: Any, elem: Elem) -> int | float:
    """The number an attribute stands for: `1.0 : f32`, `dense<0> : …`, bits as `0xFF800000`."""
    if isinstance(value, (bool, int)):
        return int(value)
    text = str(value).split(" : ")[0]
    if text.startswith("dense<"):
        text = text[len("dense<") : -1]
    if text in ("true", "false"):
        return int(text == "true")
    if text.startswith("["):
        raise UnsupportedOp("A constant tile with more than one value has no lowering.")
    if text.startswith("0x"):
        return float_of_bits(int(text, 16), elem) if elem.is_float else int(text, 16)
    return float(text) if elem.is_float else int(float(text)) if "." in text else int(text)


def float_of_bits(bits: int, elem: Elem) -> float:
    """The float whose pattern is `bits` in the format of `elem`."""
    if elem.name == "bf16":
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    code, unsigned = {16: ("e", "H"), 32: ("f", "I"), 64: ("d", "Q")}[elem.bits]
    return struct.unpack(f"<{code}", struct.pack(f"<{unsigned}", bits))[0]


_INSTEAD = {
    "tt.elementwise_inline_asm": "write it in triton.language: the assembly is that of a GPU"
}


class _Translator:
    def __init__(self, functions: dict[str, MlirOp]) -> None:
        self.functions = functions
        self.values: dict[int, Value] = {}
        self.count = 0

    def function(self, op: MlirOp) -> Function:
        region = self._region(op.regions[0])
        attrs: list[dict[str, Any]] = op.attrs.get("arg_attrs") or [{}] * len(region.block.args)
        factors = [int(one.get("tt.divisibility", 1)) for one in attrs]
        return Function(str(op.attrs["sym_name"]), region, [], factors, op.location)

    def _value(self, number: int, kind: Type, op: Op | None = None, index: int = 0) -> Value:
        self.count += 1
        known = self.values.get(number)
        if known is not None and known.op is None and known.name == "":  # used before defined
            known.op, known.index, known.name, known.type = op, index, str(self.count), kind
            return known
        value = self.values[number] = Value(kind, op, index, str(self.count))
        return value

    def _region(self, blocks: list[MlirBlock]) -> Region:
        kept = _reachable(blocks)
        labels = {block.label: f"b{self.count}_{i}" for i, block in enumerate(kept)}
        region = Region()
        for block in kept:
            args = [self._value(number, parse_type(kind)) for number, kind in block.args]
            region.blocks.append(Block(args, [], labels[block.label]))
        for source, block in zip(kept, region.blocks, strict=True):
            for op in source.ops:
                self._op(op, block, labels)
        return region

    def _op(self, source: MlirOp, block: Block, labels: dict[str, str]) -> None:
        if source.name == "arith.constant":
            self._constant(source, block)
        elif source.name == "tt.call":
            self._call(source, block)
        else:
            op = self._begin(self._name(source), source)
            op.attrs = _attrs(source, op)
            if source.successors:
                op.attrs["targets"] = [labels[name.split("(")[0]] for name in source.successors]
            op.regions = [self._region(region) for region in source.regions]
            block.ops.append(op)

    def _name(self, source: MlirOp) -> str:
        name = ELEMENTWISE_NAMES.get(source.name) or STRUCTURAL_NAMES.get(source.name)
        if name is None:
            raise UnsupportedOp(
                f"The CPU backend has no lowering for {source.name}.",
                where=str(source.location),
                fix=_INSTEAD.get(source.name, ""),
            )
        return name

    def _begin(self, name: str, source: MlirOp) -> Op:
        op = Op(name, [self._operand(number) for number in source.operands])
        op.location = source.location
        for index, (number, kind) in enumerate(
            zip(source.results, source.result_types, strict=True)
        ):
            op.results.append(self._value(number, self._type(kind, source.location), op, index))
        return op

    def _type(self, text: str, location: Location) -> Type:
        try:
            return parse_type(text)
        except UnsupportedOp as error:
            raise UnsupportedOp(error.wrong, where=str(location)) from None

    def _operand(self, number: int) -> Value:
        if number not in self.values:
            self.values[number] = Value(
                parse_type("i32")
            )  # its definition follows in a later block
        return self.values[number]

    def _constant(self, source: MlirOp, block: Block) -> None:
        op = self._begin("const", source)
        op.attrs = {"value": constant(source.attrs["value"], op.result.type.elem)}
        block.ops.append(op)

    def _call(self, source: MlirOp, block: Block) -> None:
        """Inlines the callee: into `block` if it is one block, else as a `call` with a region."""
        callee = self.functions[str(source.attrs["callee"])]
        blocks = _reachable(callee.regions[0])
        arguments = [self._operand(number) for number in source.operands]
        outer, self.values = self.values, {}
        for (number, _), value in zip(blocks[0].args, arguments, strict=True):
            self.values[number] = value
        if len(blocks) == 1:
            for op in blocks[0].ops[:-1]:
                self._op(op, block, {})
            returned = [self._operand(number) for number in blocks[0].ops[-1].operands]
            self.values = outer
            for number, value in zip(source.results, returned, strict=True):
                self.values[number] = value
            return
        entry = MlirBlock(blocks[0].label, [], blocks[0].ops)
        region = self._region([entry, *blocks[1:]])
        self.values = outer
        op = self._begin("call", source)
        op.operands = []
        op.regions = [region]
        block.ops.append(op)


def _reachable(blocks: list[MlirBlock]) -> list[MlirBlock]:
    by_label = {block.label: block for block in blocks}
    seen = {blocks[0].label}
    todo = [blocks[0]]
    while todo:
        for op in todo.pop().ops:
            for name in op.successors:
                label = name.split("(")[0]
                if label not in seen:
                    seen.add(label)
                    todo.append(by_label[label])
    return [block for block in blocks if block.label in seen]


def _attrs(source: MlirOp, op: Op) -> dict[str, Any]:
    """The attributes the lowering reads, in plain form."""
    given = source.attrs
    attrs: dict[str, Any] = {}
    if source.name in ("arith.cmpi", "arith.cmpf"):
        names = INTEGER_COMPARISONS if source.name == "arith.cmpi" else FLOAT_COMPARISONS
        attrs["predicate"] = names[given["predicate"]]
    elif op.name == "atomic_rmw":
        attrs["operation"] = ATOMIC_OPS[given["atomic_rmw_op"]]
    elif op.name == "range":
        attrs["start"] = given["start"]
    if "operandSegmentSizes" in given:
        attrs["segments"] = given["operandSegmentSizes"]
    if source.name in ("tt.precise_sqrt", "tt.precise_divf"):
        attrs["precise"] = True
    for name in ("axis", "order", "symbol", "reverse", "message", "prefix", "isSigned", "hex"):
        if name in given:
            attrs[name] = given[name]
    for name in (
        "rounding",
        "propagateNan",
        "inputPrecision",
        "a_elem_type",
        "b_elem_type",
        "scope",
    ):
        if name in given:
            attrs[name] = given[name]
    for name in ("lhs_k_pack", "rhs_k_pack", "sem", "pack", "unsignedCmp", "isVolatile"):
        if name in given:
            attrs[name] = given[name]
    if "llvm.loop_annotation" in given or "tt.disable_licm" in given:
        attrs["disable_licm"] = True
    return attrs


def base_name(symbol: str) -> str:
    """`expf` of `__nv_expf`: the plain name of a libdevice function."""
    return re.sub(r"^__nv_", "", symbol)
