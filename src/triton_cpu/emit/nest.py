"""Emits a loop nest: loops over the shape, in chunks of lanes along one dim, and its roots."""

from contextlib import ExitStack

from ..passes.steps import AtomicRoot, CopyRoot, Nest, ReduceRoot, StoreRoot
from ..tile.ops import Value
from ..tile.types import I32, Elem
from . import atomics, memory
from .context import Context, widest_bits
from .evaluate import Chunk, Index
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
    order = [dim for dim in range(len(nest.shape)) if dim not in (lane_dim, axis)]
    if axis != lane_dim and lane_dim >= 0:
        order.append(lane_dim)
    index: list[tuple[str, bool]] = [("0", False)] * len(nest.shape)
    with ExitStack() as stack:
        for dim in order:
            index[dim] = _enter(stack, chunk, nest, dim, lane_dim)
        if axis is None:
            _at_index(chunk, nest, tuple(index), reductions)
            return
        for reduction in reductions:
            reduction.begin()
        with ExitStack() as inner:
            index[axis] = _enter(inner, chunk, nest, axis, lane_dim)
            _at_index(chunk, nest, tuple(index), reductions)
        for reduction in reductions:
            reduction.finish(chunk, tuple(index))


def _lane_dim(nest: Nest) -> int:
    """The dim along which lanes run: the last one that has more than one element."""
    for dim in reversed(range(len(nest.shape))):
        if nest.shape[dim] > 1:
            return dim
    return len(nest.shape) - 1


def _lane_count(c: Context, nest: Nest, lane_dim: int) -> int:
    if lane_dim < 0:
        return 1
    elems: list[Elem] = [value.type.elem for value in nest.values if value.type.elem.bits > 1]
    elems += [value.type.elem for root in nest.roots for value in root.inputs if value.type.is_tile]
    divides = any(
        value.op is not None and value.op.name in ("sdiv", "udiv", "srem", "urem")
        for value in nest.values
    )
    count = c.lane_count(nest.shape[lane_dim], widest_bits(elems))
    return min(count, 16) if divides else count


def _enter(stack: ExitStack, chunk: Chunk, nest: Nest, dim: int, lane_dim: int) -> tuple[str, bool]:
    """Opens the loop over one dim; gives its index."""
    step = chunk.count if dim == lane_dim else 1
    name = stack.enter_context(chunk.context.w.loop(nest.shape[dim], step))
    if name != "0":
        chunk.index_factor[name] = step
    return name, dim == lane_dim


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
        _fetch_ahead(chunk, root.inputs[0], index, elem)
        memory.store(chunk.context, pointer, value, mask, elem, chunk.count, root.op)
    else:
        memory.check_one(chunk.context, pointer, mask, root.op)
        memory.store_one(chunk.context, pointer.value, value.value, mask, elem)


def _fetch_ahead(chunk: Chunk, pointers: Value, index: Index, elem: Elem) -> None:
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
    w.fetch_to_write(pointer.value, chunk.count * elem.size_bytes)
