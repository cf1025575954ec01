"""What `tt.dot` reads: tiles in buffers, and matrices where they lie in the caller's memory."""

from dataclasses import dataclass

from ..passes.steps import Buffer, Nest, spread_buffer
from ..tile.ops import Value
from ..tile.types import Elem
from .context import Context
from .convert import float_cast
from .evaluate import Chunk
from .lanes import Lanes, as_vector
from .rearrange import each
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in the caller's memory: the address of its first element, and how many elements its
    rows are apart, both names."""

    first: str
    row: str
    shape: tuple[int, ...]
    elem: Elem


Operand = Buffer | Matrix


def operand(c: Context, value: Value) -> Operand:
    """Where the operand is read."""
    buffer = c.schedule.buffers.get(value)
    return _in_memory(c, value) if buffer is None else buffer


def _in_memory(c: Context, value: Value) -> Matrix:
    """The addresses of the first two rows say where all are."""
    w, elem = c.w, value.type.elem
    assert value.op is not None
    chunk = Chunk(c, Nest(value.type.dims), 1)
    first, second = (
        chunk.lanes(value.op.operands[0], ((row, False), ("0", True))) for row in ("0", "1")
    )
    assert first.step == 1, "the last dim's elements are not consecutive"
    begin, end = (w.let(f"ptrtoint ptr {row.value} to i64") for row in (first, second))
    apart = w.let(f"sdiv exact i64 {w.let(f'sub i64 {end}, {begin}')}, {elem.size_bytes}")
    return Matrix(first.value, apart, value.type.dims, elem)


def converted(c: Context, source: Operand, elem: Elem) -> Buffer:
    """A copy in a buffer of its own."""
    fresh = spread_buffer(elem, source.shape)
    convert_into(c, source, fresh)
    return fresh


def convert_into(c: Context, source: Operand, target: Buffer) -> None:
    """Copies with conversion, a chunk of lanes of the last dim at a time."""
    count = c.lane_count(source.shape[-1], 32)
    chunk = Chunk(c, Nest(source.shape), count)
    last = len(source.shape) - 1
    with each(c, source.shape, count) as names:
        index = tuple((name, dim == last) for dim, name in enumerate(names))
        if isinstance(source, Buffer):
            value = as_vector(c.w, chunk.read(source, index), count)
        else:
            row, column = names
            place = c.w.element(source.elem, source.first, row, source.row, column)
            value = c.w.load(source.elem, place, count)
        cast = _cast(c.w, value, source.elem, target.elem, count)
        chunk.write(target, index, Lanes(cast, target.elem, None))


def _cast(w: Writer, value: str, source: Elem, target: Elem, count: int) -> str:
    if source.is_float or source.is_fp8:
        return float_cast(w, value, source, target, count)
    return w.convert("sext" if source.bits < target.bits else "trunc", value, source, target, count)
