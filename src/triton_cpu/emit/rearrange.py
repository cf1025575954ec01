"""Ops that read other elements than their own: gather, histogram, and user functions over tiles."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from ..tile.ops import Op
from ..tile.types import I32, Elem
from .combine import combine
from .context import Context


@contextmanager
def each(c: Context, shape: tuple[int, ...], step: int = 1) -> Generator[list[str]]:
    """Loops over all indices of `shape`, the last dim by `step`."""
    with ExitStack() as stack:
        last = len(shape) - 1
        yield [
            stack.enter_context(c.w.loop(size, step if dim == last else 1))
            for dim, size in enumerate(shape)
        ]


def _as_i32(c: Context, value: str, elem: Elem) -> str:
    how = "trunc" if elem.bits > 32 else "zext"
    return c.w.convert(how, value, elem, I32, 0)


def emit_gather(c: Context, op: Op) -> None:
    """`result[…, k, …] = source[…, index[…, k, …], …]` along one axis."""
    source, indices = (c.buffer_of(value) for value in op.operands)
    result, axis = c.buffer_of(op.result), int(op.attrs["axis"])
    with each(c, result.shape) as index:
        picked = _as_i32(c, c.read(indices, index), indices.elem)
        at = [*index]
        at[axis] = picked
        c.write(result, index, c.read(source, at))


def emit_histogram(c: Context, op: Op) -> None:
    """Counts of each value; values outside the bins, and masked ones, are not counted."""
    w = c.w
    source, result = c.buffer_of(op.operands[0]), c.buffer_of(op.result)
    with each(c, result.shape) as index:
        c.write(result, index, "0")
    with each(c, source.shape) as index:
        value = _as_i32(c, c.read(source, index), source.elem)
        counted = w.let(f"icmp ult i32 {value}, {result.shape[0]}")
        if len(op.operands) > 1:
            flag = c.read(c.buffer_of(op.operands[1]), index)
            counted = w.let(f"and i1 {counted}, {flag}")
        with w.when(counted):
            before = c.read(result, [value])
            c.write(result, [value], w.let(f"add {result.elem.llvm} {before}, 1"))


def emit_map(c: Context, op: Op) -> None:
    """`tl.map_elementwise`: a function of `pack` consecutive elements of each operand."""
    pack = int(op.attrs.get("pack", 1))
    shape = op.result.type.dims
    with each(c, shape, pack) as index:
        lanes = [[*index[:-1], _plus(c, index[-1], k)] for k in range(pack)]
        args = [c.read(c.buffer_of(value), at) for value in op.operands for at in lanes]
        returned = iter(combine(c, op.regions[0], args, 0))
        for result in op.results:
            for at in lanes:
                c.write(c.buffer_of(result), at, next(returned))


def _plus(c: Context, index: str, amount: int) -> str:
    if not amount:
        return index
    return str(int(index) + amount) if index.isdigit() else c.w.let(f"add i32 {index}, {amount}")
