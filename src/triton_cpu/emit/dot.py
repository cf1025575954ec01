"""`tt.dot`: operands in buffers, the accumulator's buffer updated in place.

The kernel keeps a block of rows × vectors of the accumulator in registers and runs over k inside.
Operands of 16 and 8 bits are widened to the accumulator's type first; bfloat16 is not where the CPU
has a matrix unit.
"""

from dataclasses import dataclass
from math import gcd

from ..passes.steps import Buffer
from ..tile.ops import Op
from ..tile.types import BF16, F32, F64, I32, Elem
from . import amx
from .context import Context
from .operands import Matrix, Operand, convert_into, converted, operand
from .rearrange import each
from .writer import Writer, mangle, vector

_USES_OF_A_PANEL = 8
"""Blocks of rows from which on copying a panel of B pays."""
_SETS, _WAYS, _LINE_BYTES = 64, 8, 64
"""Of a first-level data cache; today's have 8 to 12 ways."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one matrix product in memory, and strides of its matrices in elements, as LLVM sees
    them: numbers, or names of parameters."""

    m: int
    n: int
    k: int
    a: tuple[str, str]
    b: tuple[str, str]
    c: tuple[str, str]
    elem: Elem


def emit_dot(c: Context, op: Op) -> None:
    """accumulator += a · b, for each batch."""
    left, right = (operand(c, value) for value in op.operands[:2])
    start = "true" if op.attrs.get("from_zero") else c.starts.get(op, "false")
    multiply(c, left, right, c.buffer_of(op.result), start)


def multiply(c: Context, left: Operand, right: Operand, out: Buffer, start: str = "false") -> None:
    """out += left · right, for each batch; where `start` holds, out = left · right."""
    if _by_matrix_unit(c, left, right, out):
        left, right = (_with_consecutive_columns(c, each) for each in (left, right))
        _products(c, left, right, out, start, amx.FEATURE)
        return
    elem = _computed_in(out.elem)
    if left.elem is not elem or isinstance(left, Matrix):  # its rows pass by several times
        left = converted(c, left, elem)
    if right.elem is not elem or _strides(right)[1] != 1:
        right = converted(c, right, elem)
    total = out if out.elem is elem else converted(c, out, elem)
    _products(c, left, right, total, start, "")
    if total is not out:
        convert_into(c, total, out)


def _by_matrix_unit(c: Context, left: Operand, right: Operand, out: Buffer) -> bool:
    (m, k), n = left.shape[-2:], right.shape[-1]
    both = left.elem is BF16 and right.elem is BF16 and out.elem is F32
    return both and out.strides[-1] == 1 and amx.fits(c.target.features, m, n, k)


def _with_consecutive_columns(c: Context, source: Operand) -> Operand:
    return source if _strides(source)[1] == 1 else converted(c, source, source.elem)


def _strides(source: Operand) -> tuple[int | None, int]:
    """From row to row, if that is known, and from column to column."""
    return (None, 1) if isinstance(source, Matrix) else (source.strides[-2], source.strides[-1])


def _products(
    c: Context, left: Operand, right: Operand, total: Buffer, start: str, unit: str
) -> None:
    (m, k), n = left.shape[-2:], right.shape[-1]
    a, b, out = (
        _named_strides(name, source) for name, source in (("A", left), ("B", right), ("C", total))
    )
    shape = Shape(m, n, k, a, b, out, left.elem)
    rows = [f"i64 {one.row if isinstance(one, Matrix) else 0}" for one in (left, right)]
    with each(c, total.shape[:-2]) as batch:
        index = [*batch, "0", "0"]
        given = [
            f"ptr {source.first if isinstance(source, Matrix) else c.address(source, index)}"
            for source in (left, right, total)
        ]
        args = ", ".join([*given, *rows, f"i1 {start}"])
        c.w.do(f"call void @{_kernel(c, shape, unit)}({args})")


def _named_strides(name: str, source: Operand) -> tuple[str, str]:
    row, column = _strides(source)
    return f"%{name}.row" if row is None else str(row), str(column)


def _computed_in(elem: Elem) -> Elem:
    if not elem.is_float:
        return I32
    return F64 if elem is F64 else F32


def _kernel(c: Context, shape: Shape, unit: str) -> str:
    """The product as a function of its own, one for each shape."""
    key = f"dot.{shape}{unit}"
    if key not in c.w.functions:
        name = f"dot{len(c.w.functions)}"
        inner = c.w.inner()
        if unit:
            rows = shape.a[0], shape.b[0], shape.c[0]
            amx.Product(inner, shape.m, shape.n, shape.k, rows).write()
        else:
            _Microkernel(inner, shape, c.target.vector_bits).write()
        body = "\n".join([*inner.allocas, *inner.lines])
        c.w.functions[key] = (
            f"define internal void @{name}(ptr noalias readonly %A, ptr noalias readonly %B,"
            f" ptr noalias %C, i64 %A.row, i64 %B.row, i1 %start) nounwind"
            f" {{\nentry:\n{body}\n  ret void\n}}"
        )
    return c.w.functions[key].split("@")[1].split("(")[0]


def _crowded(rows: int, stride_bytes: int, width_bytes: int) -> bool:
    """Whether lines of rows `stride_bytes` apart share so few sets of the cache that they do not
    fit: those a power of two apart do."""
    lines = max(1, width_bytes // _LINE_BYTES)
    apart = max(1, stride_bytes // _LINE_BYTES)
    sets = min(_SETS, _SETS // gcd(apart, _SETS) * lines)
    return stride_bytes > width_bytes and rows * lines > _WAYS * sets


class _Microkernel:
    """Writes C += A·B in blocks of `rows` × `columns` vectors held in registers."""

    def __init__(self, w: Writer, shape: Shape, vector_bits: int) -> None:
        self.w, self.shape, self.elem = w, shape, shape.elem
        self.lanes = min(shape.n, vector_bits // shape.elem.bits)
        self.columns = min(4 if vector_bits >= 512 else 2, max(1, shape.n // self.lanes))
        registers = 24 if vector_bits >= 512 else 12
        self.rows = min(shape.m, max(1, registers // self.columns))
        self.panel = w.alloca(f"[{shape.k * self.lanes * self.columns} x {shape.elem.llvm}]")
        self.right, self.right_strides, self.right_column = "%B", shape.b, ""

    def write(self) -> None:
        """The loops over blocks: a panel of columns of B stays in the first-level cache while the
        rows of A pass by."""
        shape, width = self.shape, self.lanes * self.columns
        full = shape.n - shape.n % width
        if full:
            with self.w.loop(full, width) as column:
                self._rows(column, self.columns)
        rest = (shape.n - full) // self.lanes
        if rest:
            self._rows(str(full), rest)

    def _rows(self, column: str, columns: int) -> None:
        self._take_panel(column, columns)
        full = self.shape.m - self.shape.m % self.rows
        if full:
            with self.w.loop(full, self.rows) as row:
                self._block(row, self.rows, column, columns)
        if full < self.shape.m:
            self._block(str(full), self.shape.m - full, column, columns)

    def _take_panel(self, column: str, columns: int) -> None:
        """Lays the columns of B that come next side by side, if they would crowd each other out of
        the first-level cache, and enough rows of A use them."""
        w, shape, width = self.w, self.shape, columns * self.lanes
        size = self.elem.size_bytes
        row = shape.b[0]
        crowded = row == "%B.row" or _crowded(shape.k, int(row) * size, width * size)
        if not crowded or shape.m < _USES_OF_A_PANEL * self.rows:
            self.right, self.right_strides, self.right_column = "%B", shape.b, column
            return
        self.right, self.right_strides, self.right_column = self.panel, (str(width), "1"), "0"
        with w.loop(shape.k) as index:
            source = self._at("%B", shape.b, index, column)
            target = self._at(self.panel, (str(width), "1"), index, "0")
            for offset in range(0, width, self.lanes):
                value = w.load(self.elem, w.offset(self.elem, source, str(offset)), self.lanes)
                w.store(self.elem, value, w.offset(self.elem, target, str(offset)), self.lanes)

    def _block(self, row: str, rows: int, column: str, columns: int) -> None:
        """One block: loads the accumulators, runs over k, stores them."""
        w, shape, elem = self.w, self.shape, self.elem
        kind = vector(elem, self.lanes)
        places = self._places(row, rows, column, columns)
        held = [w.load(elem, place, self.lanes) for place in places]
        zero = "zeroinitializer"
        start = [w.let(f"select i1 %start, {kind} {zero}, {kind} {value}") for value in held]
        stem, before = w.name("k"), w.label_now
        w.jump(stem)
        w.label(stem)
        index = f"%{stem}.i"
        w.do(f"{index} = phi i32 [ 0, %{before} ], [ {index}.next, %{stem} ]")
        held = [f"%{w.name('acc')}" for _ in places]
        updated = [f"%{w.name('sum')}" for _ in places]
        for name, first, after in zip(held, start, updated, strict=True):
            w.do(f"{name} = phi {kind} [ {first}, %{before} ], [ {after}, %{stem} ]")
        self._step(row, rows, columns, index, held, updated)
        w.do(f"{index}.next = add nuw nsw i32 {index}, 1")
        again = w.let(f"icmp slt i32 {index}.next, {shape.k}")
        w.branch(again, stem, f"{stem}.end")
        w.label(f"{stem}.end")
        for place, value in zip(places, updated, strict=True):
            w.store(elem, value, place, self.lanes)

    def _at(self, base: str, strides: tuple[str, str], row: str, column: str) -> str:
        w = self.w
        terms = [
            w.let(f"mul nsw i64 {w.wide(index)}, {stride}")
            for index, stride in zip((row, column), strides, strict=True)
        ]
        return w.offset(self.elem, base, w.let(f"add nsw i64 {terms[0]}, {terms[1]}"))

    def _places(self, row: str, rows: int, column: str, columns: int) -> list[str]:
        places: list[str] = []
        for i in range(rows):
            line = self._at("%C", self.shape.c, self.w.let(f"add i32 {row}, {i}"), column)
            places += [self.w.offset(self.elem, line, str(j * self.lanes)) for j in range(columns)]
        return places

    def _step(
        self,
        row: str,
        rows: int,
        columns: int,
        index: str,
        held: list[str],
        updated: list[str],
    ) -> None:
        w, elem, lanes = self.w, self.elem, self.lanes
        line = self._at(self.right, self.right_strides, index, self.right_column)
        right = [w.load(elem, w.offset(elem, line, str(j * lanes)), lanes) for j in range(columns)]
        for i in range(rows):
            place = self._at("%A", self.shape.a, w.let(f"add i32 {row}, {i}"), index)
            left = w.splat(elem, w.load(elem, place), lanes)
            for j in range(columns):
                at = i * columns + j
                self._multiply_add(updated[at], left, right[j], held[at])

    def _multiply_add(self, name: str, a: str, b: str, c: str) -> None:
        w, kind = self.w, vector(self.elem, self.lanes)
        if self.elem.is_float:
            full = f"llvm.fma.{mangle(self.elem, self.lanes)}"
            w.declare(full, f"declare {kind} @{full}({kind}, {kind}, {kind})")
            w.do(f"{name} = call {kind} @{full}({kind} {a}, {kind} {b}, {kind} {c})")
        else:
            product = w.let(f"mul {kind} {a}, {b}")
            w.do(f"{name} = add {kind} {product}, {c}")
