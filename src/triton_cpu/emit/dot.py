"""`tt.dot`: operands in buffers, the accumulator's buffer updated in place.

The kernel keeps a block of rows × vectors of the accumulator in registers and runs over k inside.
Operands of 16 and 8 bits are widened to the accumulator's type first; bfloat16 is not where the CPU
has a matrix unit.
"""

from dataclasses import dataclass
from math import gcd, prod

from ..passes.steps import Buffer, Storage, row_major
from ..tile.ops import Op
from ..tile.types import BF16, F32, F64, I32, Elem
from . import amx
from .context import Context
from .convert import float_cast
from .rearrange import each
from .writer import Writer, mangle, vector

_USES_OF_A_PANEL = 8
"""Blocks of rows from which on copying a panel of B pays."""
_SETS, _WAYS, _LINE_BYTES = 64, 8, 64
"""Of a first-level data cache; today's have 8 to 12 ways."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes and strides, in elements, of one matrix product in memory."""

    m: int
    n: int
    k: int
    a: tuple[int, int]
    b: tuple[int, int]
    c: tuple[int, int]
    elem: Elem

    @property
    def strides(self) -> tuple[int, int, int]:
        """From row to row of each."""
        return self.a[0], self.b[0], self.c[0]


def emit_dot(c: Context, op: Op) -> None:
    """accumulator += a · b, for each batch."""
    left, right = (c.buffer_of(value) for value in op.operands[:2])
    multiply(c, left, right, c.buffer_of(op.result))


def multiply(c: Context, left: Buffer, right: Buffer, out: Buffer) -> None:
    """out += left · right, for each batch."""
    if _by_matrix_unit(c, left, right, out):
        left, right = (_with_consecutive_columns(c, each) for each in (left, right))
        _products(c, left, right, out, amx.FEATURE)
        return
    elem = _computed_in(out.elem)
    left, right = _widened(c, left, elem, False), _widened(c, right, elem, True)
    total = out if out.elem is elem else _converted(c, out, elem)
    _products(c, left, right, total, "")
    if total is not out:
        _convert_into(c, total, out)


def _by_matrix_unit(c: Context, left: Buffer, right: Buffer, out: Buffer) -> bool:
    (m, k), n = left.shape[-2:], right.shape[-1]
    both = left.elem is BF16 and right.elem is BF16 and out.elem is F32
    return both and out.strides[-1] == 1 and amx.fits(c.target.features, m, n, k)


def _with_consecutive_columns(c: Context, buffer: Buffer) -> Buffer:
    return buffer if buffer.strides[-1] == 1 else _converted(c, buffer, buffer.elem)


def _products(c: Context, left: Buffer, right: Buffer, total: Buffer, unit: str) -> None:
    (m, k), n = left.shape[-2:], right.shape[-1]
    shape = Shape(m, n, k, _pair(left), _pair(right), _pair(total), left.elem)
    with each(c, total.shape[:-2]) as batch:
        index = [*batch, "0", "0"]
        given = [f"ptr {c.address(buffer, index)}" for buffer in (left, right, total)]
        c.w.do(f"call void @{_kernel(c, shape, unit)}({', '.join(given)})")


def _pair(buffer: Buffer) -> tuple[int, int]:
    return buffer.strides[-2], buffer.strides[-1]


def _computed_in(elem: Elem) -> Elem:
    if not elem.is_float:
        return I32
    return F64 if elem is F64 else F32


def _widened(c: Context, buffer: Buffer, elem: Elem, consecutive_rows: bool) -> Buffer:
    """The operand in the accumulator's type; the right one with consecutive columns."""
    if buffer.elem is elem and (not consecutive_rows or buffer.strides[-1] == 1):
        return buffer
    return _converted(c, buffer, elem)


def _converted(c: Context, buffer: Buffer, elem: Elem) -> Buffer:
    fresh = Buffer(Storage(elem, prod(buffer.shape)), buffer.shape, row_major(buffer.shape))
    _convert_into(c, buffer, fresh)
    return fresh


def _convert_into(c: Context, source: Buffer, target: Buffer) -> None:
    """Copies with conversion, a chunk of lanes of the last dim at a time."""
    from ..passes.steps import Nest
    from .evaluate import Chunk
    from .lanes import Lanes, as_vector

    count = c.lane_count(source.shape[-1], 32)
    chunk = Chunk(c, Nest(source.shape), count)
    last = len(source.shape) - 1
    with each(c, source.shape, count) as names:
        index = tuple((name, dim == last) for dim, name in enumerate(names))
        value = as_vector(c.w, chunk.read(source, index), count)
        chunk.write(
            target,
            index,
            Lanes(_cast(c.w, value, source.elem, target.elem, count), target.elem, None),
        )


def _cast(w: Writer, value: str, source: Elem, target: Elem, count: int) -> str:
    if source.is_float or source.is_fp8:
        return float_cast(w, value, source, target, count)
    return w.convert("sext" if source.bits < target.bits else "trunc", value, source, target, count)


def _kernel(c: Context, shape: Shape, unit: str) -> str:
    """The product as a function of its own, one for each shape."""
    key = f"dot.{shape}{unit}"
    if key not in c.w.functions:
        name = f"dot{len(c.w.functions)}"
        inner = c.w.inner()
        if unit:
            amx.Product(inner, shape.m, shape.n, shape.k, shape.strides).write()
        else:
            _Microkernel(inner, shape, c.target.vector_bits).write()
        body = "\n".join([*inner.allocas, *inner.lines])
        c.w.functions[key] = (
            f"define internal void @{name}(ptr noalias readonly %A, ptr noalias readonly %B,"
            f" ptr noalias %C) nounwind {{\nentry:\n{body}\n  ret void\n}}"
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
        crowded = _crowded(shape.k, shape.b[0] * size, width * size)
        if not crowded or shape.m < _USES_OF_A_PANEL * self.rows:
            self.right, self.right_strides, self.right_column = "%B", shape.b, column
            return
        self.right, self.right_strides, self.right_column = self.panel, (width, 1), "0"
        with w.loop(shape.k) as index:
            source = self._at("%B", shape.b, index, column)
            target = self._at(self.panel, (width, 1), index, "0")
            for offset in range(0, width, self.lanes):
                value = w.load(self.elem, w.offset(self.elem, source, str(offset)), self.lanes)
                w.store(self.elem, value, w.offset(self.elem, target, str(offset)), self.lanes)

    def _block(self, row: str, rows: int, column: str, columns: int) -> None:
        """One block: loads the accumulators, runs over k, stores them."""
        w, shape, elem = self.w, self.shape, self.elem
        kind = vector(elem, self.lanes)
        places = self._places(row, rows, column, columns)
        start = [w.load(elem, place, self.lanes) for place in places]
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

    def _at(self, base: str, strides: tuple[int, int], row: str, column: str) -> str:
        w = self.w
        offset = w.let(f"mul nsw i32 {row}, {strides[0]}")
        other = w.let(f"mul nsw i32 {column}, {strides[1]}")
        return w.offset(self.elem, base, w.let(f"add nsw i32 {offset}, {other}"), I32)

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
