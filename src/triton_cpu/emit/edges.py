"""Where masks end. `i < n` holds for the first elements along a dim and for none behind them, so a
loop over lanes has a main part, where such comparisons are true, and a rest where they are made."""

from collections.abc import Container, Iterable, Iterator

from ..passes.addresses import Steps, steps_of
from ..passes.steps import Nest, StoreRoot
from ..tile.ops import Op, Value
from ..tile.types import I32, I64
from .evaluate import FIRST, MOVED_VIEWS, Chunk, Index, behind
from .lanes import turning_point
from .memory import load_operands

_UNKNOWN = ("", False)
"""The index along a dim whose loop is opened further inside."""


def main_part(chunk: Chunk, index: Index, lane_dim: int) -> str | None:
    """How many elements along `lane_dim`, in whole chunks, come before the masks of loads and
    stores end; None if they have no such end. `index` is that of the loops around. The comparisons
    are then among `chunk.certain`."""
    w, nest = chunk.context.w, chunk.nest
    here = [("0", True) if dim == lane_dim else at for dim, at in enumerate(index)]
    if nest.reduce_axis is not None and nest.reduce_axis != lane_dim:
        here[nest.reduce_axis] = _UNKNOWN
    limit, known = None, dict[Value, Steps | None]()
    for value, place in _comparisons(nest, tuple(here)):
        end = _end(chunk, value, place, known)
        if end is not None:
            limit = end if limit is None else w.intrinsic("smin", I64, 0, limit, end)
            chunk.certain[value] = place
    if limit is None:
        return None
    size = str(nest.shape[lane_dim])
    within = w.intrinsic("smax", I64, 0, w.intrinsic("smin", I64, 0, limit, size), "0")
    return w.let(f"and i32 {w.convert('trunc', within, I64, I32, 0)}, {-chunk.count}")


def _end(chunk: Chunk, value: Value, place: Index, known: dict[Value, Steps | None]) -> str | None:
    """The number of elements, as i64, for which the comparison holds: the first ones along the
    lanes; None if it isn't one of consecutive numbers with an upper bound. `known` are steps."""
    assert value.op is not None
    along = [dim for dim, (_, is_along) in enumerate(place) if is_along]
    if len(along) != 1 or _UNKNOWN in place:
        return None
    for operand in value.op.operands:
        steps = steps_of(operand, known)
        if steps is None or steps[along[0]] not in (0, 1):
            return None
    first, second = (chunk.lanes(operand, place) for operand in value.op.operands)
    turn = turning_point(chunk.context.w, value.op.attrs["predicate"], first, second)
    return turn[0] if turn is not None and turn[1] else None


def _comparisons(nest: Nest, index: Index) -> Iterator[tuple[Value, Index]]:
    """Comparisons of integers that all must hold where the nest loads or stores by a mask."""
    for op, at in _reached(nest, _masks(nest, index), ("and", *MOVED_VIEWS)):
        if op.name == "cmp" and op.operands[0].type.elem.is_int:
            yield op.result, at


def _masks(nest: Nest, index: Index) -> Iterator[tuple[Value, Index]]:
    """The masks of all loads and stores, with the index at which they are read."""
    for root in nest.roots:
        if isinstance(root, StoreRoot) and len(root.inputs) > 2:
            yield root.inputs[2], index
    for op, at in _reached(nest, ((value, index) for root in nest.roots for value in root.inputs)):
        mask = load_operands(op)[1] if op.name == "load" else None
        if mask is not None:
            yield mask, at


def _reached(
    nest: Nest, starts: Iterable[tuple[Value, Index]], through: Container[str] | None = None
) -> Iterator[tuple[Op, Index]]:
    """The ops of the nest that values come from, each with the index at which it is read: behind
    those named in `through`, or behind all."""
    pending, seen = list(starts), set[tuple[Value, Index]]()
    while pending:
        value, at = pending.pop()
        op = value.op
        if op is None or value not in nest.values or (value, at) in seen:
            continue
        seen.add((value, at))
        yield op, at
        if through is None or op.name in through:
            inner = behind(op, at, FIRST) if op.name in MOVED_VIEWS else at
            pending += [(operand, inner) for operand in op.operands if operand.type.is_tile]
