"""`tt.scan`: running reductions along one dim, forward or backward.

Along the last dim the elements are folded one by one; along another, a chunk of lanes at a time.
"""

from ..passes.steps import Buffer, Nest
from ..tile.ops import Op
from ..tile.types import Elem
from . import rearrange
from .combine import combine
from .context import Context
from .evaluate import Chunk
from .lanes import Lanes
from .writer import memory_vector


def emit_scan(c: Context, op: Op) -> None:
    """Writes the loops."""
    axis, shape = int(op.attrs["axis"]), op.operands[0].type.dims
    elems = [value.type.elem for value in op.operands]
    lanes_dim = len(shape) - 1
    count = 0 if axis == lanes_dim else c.lane_count(shape[-1], max(e.bits for e in elems))
    held = [c.w.alloca(memory_vector(elem, count)) for elem in elems]
    outer = tuple(1 if dim == axis else size for dim, size in enumerate(shape))
    with rearrange.each(c, outer, count or 1) as index:
        _along(c, op, index, held, elems, count)


def _along(
    c: Context, op: Op, index: list[str], held: list[str], elems: list[Elem], count: int
) -> None:
    w, axis = c.w, int(op.attrs["axis"])
    size = op.operands[0].type.dims[axis]
    chunk = Chunk(c, Nest(op.operands[0].type.dims), count or 1)
    with w.loop(size) as turn:
        position = w.let(f"sub i32 {size - 1}, {turn}") if op.attrs.get("reverse") else turn
        at = [*index]
        at[axis] = position
        values = [_read(c, chunk, c.buffer_of(value), at, count) for value in op.operands]
        if size > 1:
            values = _fold(c, op, turn, values, held, elems, count)
        for result, elem, place, value in zip(op.results, elems, held, values, strict=True):
            w.store(elem, value, place, count)
            _write(c, chunk, c.buffer_of(result), at, value, elem, count)


def _fold(
    c: Context,
    op: Op,
    turn: str,
    values: list[str],
    held: list[str],
    elems: list[Elem],
    count: int,
) -> list[str]:
    """The values combined with what came before; the first turn takes them as they are."""
    w = c.w
    first = w.let(f"icmp eq i32 {turn}, 0")
    stem, before = w.name("fold"), w.label_now
    w.branch(first, f"{stem}.end", stem)
    w.label(stem)
    previous = [w.load(elem, place, count) for elem, place in zip(elems, held, strict=True)]
    folded = combine(c, op.regions[0], previous + values, count)
    came_from = w.label_now
    w.jump(f"{stem}.end")
    w.label(f"{stem}.end")
    merged: list[str] = []
    for elem, value, other in zip(elems, values, folded, strict=True):
        kind = f"<{count} x {elem.llvm}>" if count else elem.llvm
        merged.append(w.let(f"phi {kind} [ {value}, %{before} ], [ {other}, %{came_from} ]"))
    return merged


def _read(c: Context, chunk: Chunk, buffer: Buffer, at: list[str], count: int) -> str:
    if not count:
        return c.read(buffer, at)
    last = len(at) - 1
    lanes = chunk.read(buffer, tuple((name, dim == last) for dim, name in enumerate(at)))
    return lanes.value if lanes.is_vector else c.w.splat(lanes.elem, lanes.value, count)


def _write(
    c: Context, chunk: Chunk, buffer: Buffer, at: list[str], value: str, elem: Elem, count: int
) -> None:
    if not count:
        c.write(buffer, at, value)
        return
    last = len(at) - 1
    chunk.write(
        buffer, tuple((name, dim == last) for dim, name in enumerate(at)), Lanes(value, elem, None)
    )
