"""Emits a loop nest: loops over the shape, in chunks of lanes along one dim, and its roots."""

from collections.abc import Callable

from ..passes.addresses import Steps, steps_of
from ..passes.steps import AtomicRoot, CopyRoot, Nest, ReduceRoot, StoreRoot
from ..tile.ops import Value
from ..tile.types import I32, Elem
from . import atomics, edges, memory
from .context import Context, widest_bits
from .evaluate import FIRST, Chunk, Index, lane_size
from .lanes import Lanes
from .reduce import Reduction

_ROWS_AHEAD = 8


def emit_nest(c: Context, nest: Nest) -> None:
    """Writes the whole nest."""
    lane_dim = _lane_dim(nest)
    count = _lane_count(c, nest, lane_dim)
    chunk = Chunk(c, nest, count)
    axis = nest.reduce_axis
    reductions = [
        Reduction(c, root, count, lane_dim) for root in nest.roots if isinstance(root, ReduceRoot)
    ]
    outer = [dim for dim in range(len(nest.shape)) if dim not in (lane_dim, axis)]
    if axis != lane_dim and lane_dim >= 0:
        outer.append(lane_dim)
    inner = [] if axis is None else [axis]

    def fold(index: Index) -> None:
        for reduction in reductions:
            reduction.begin()
        _loops(chunk, inner, lane_dim, index, lambda at: _at_index(chunk, nest, at, reductions))
        for reduction in reductions:
            reduction.finish(chunk, index)

    _loops(chunk, outer, lane_dim, (FIRST,) * len(nest.shape), fold)


def _lane_dim(nest: Nest) -> int:
    """The dim along which lanes run: the last one that has more than one element."""
    for dim in reversed(range(len(nest.shape))):
        if nest.shape[dim] > 1:
            return dim
    return len(nest.shape) - 1


def _lane_count(c: Context, nest: Nest, lane_dim: int) -> int:
    if lane_dim < 0:
        return 1
    known: dict[Value, Steps | None] = {}
    elems: list[Elem] = [
        value.type.elem
        for value in nest.values
        if value.type.elem.bits > 1 and steps_of(value, known) is None
    ]
    elems += [value.type.elem for root in nest.roots for value in root.inputs if value.type.is_tile]
    divides = any(
        value.op is not None and value.op.name in ("sdiv", "udiv", "srem", "urem")
        for value in nest.values
    )
    count = c.lane_count(nest.shape[lane_dim], widest_bits(elems))
    return min(count, 16) if divides else count


def _loops(
    chunk: Chunk, dims: list[int], lane_dim: int, index: Index, body: Callable[[Index], None]
) -> None:
    """Loops over `dims`, the first outermost, around what `body` writes. The one over lanes has
    two parts where masks end: up to there they need not be looked at."""
    if not dims:
        body(index)
        return
    dim, *rest = dims
    w, size = chunk.context.w, chunk.nest.shape[dim]
    step = chunk.count if dim == lane_dim else 1

    def turn(name: str) -> None:
        if name != "0":
            chunk.index_factor[name] = step
        at = (*index[:dim], (name, dim == lane_dim), *index[dim + 1 :])
        _loops(chunk, rest, lane_dim, at, body)

    split = dim == lane_dim and size > step and not chunk.context.target.sanitize
    main = edges.main_part(chunk, index, lane_dim) if split else None
    if main is None:
        with w.loop(size, step) as name:
            turn(name)
        return
    with w.span("0", main, step) as name:
        turn(name)
    chunk.certain.clear()
    with w.span(main, str(size), step) as name:
        turn(name)


def _at_index(chunk: Chunk, nest: Nest, index: Index, reductions: list[Reduction]) -> None:
    """All roots at one index. Copies are written last, so that one may replace what another
    reads at the same index."""
    chunk.cache.clear()
    copies: list[tuple[CopyRoot, Lanes]] = []
    pending = iter(reductions)
    for root in nest.roots:
        if isinstance(root, StoreRoot):
            _store(chunk, root, index)
        elif isinstance(root, AtomicRoot):
            atomics.emit_lanes(chunk, root, index)
        elif isinstance(root, CopyRoot):
            copies.append((root, chunk.lanes(root.inputs[0], index)))
        else:
            next(pending).step(chunk, index)
    for value, buffer in nest.saves.items():
        chunk.write(buffer, index, chunk.lanes(value, index))
    for root, lanes in copies:
        chunk.write(root.buffer, index, lanes)


def _store(chunk: Chunk, root: StoreRoot, index: Index) -> None:
    pointer, value, *rest = (chunk.lanes(one, index) for one in root.inputs)
    mask = rest[0] if rest else None
    elem = root.op.operands[1].type.elem
    if any(along for _, along in index):
        size = lane_size(root.inputs[0], index)
        _fetch_rows(chunk, root.inputs[0], index, elem)
        memory.fetch_ahead(
            chunk.context, root.inputs[0], pointer, size, elem, chunk.count, write=True
        )
        memory.store(chunk.context, pointer, value, mask, elem, chunk.count, root.op)
    else:
        memory.check_one(chunk.context, pointer, mask, root.op)
        memory.store_one(chunk.context, pointer.value, value.value, mask, elem)


def _fetch_rows(chunk: Chunk, pointers: Value, index: Index, elem: Elem) -> None:
    """Asks for the lines that a later row is stored to: rows far apart are no stream that a CPU
    foresees."""
    w, shape = chunk.context.w, chunk.nest.shape
    if len(shape) < 2 or not index[-1][1] or shape[-2] < 4 * _ROWS_AHEAD:
        return
    row = w.let(f"add nuw nsw i32 {index[-2][0]}, {_ROWS_AHEAD}")
    later = w.intrinsic("umin", I32, 0, row, str(shape[-2] - 1))
    pointer = chunk.lanes(pointers, (*index[:-2], (later, False), index[-1]))
    if pointer.step != 1:
        return
    w.fetch(pointer.value, chunk.count * elem.size_bytes, write=True)
