"""Windows along a dim (`unfold`): those that neither overlap nor leave a rest are its groups."""

from collections.abc import Iterator

from supernode.ir import Op, Value
from supernode.ops.formula import Dims, Formula, bare, shape_of
from supernode.ops.row import Row, free, int_of, linear_in, same, sized, streaming


def _windows(op: Op, whole: Value, dim: int, size: int, step: int) -> Formula:
    """The dim of the `whole` is `(n w)` where windows lie side by side, else can't be split."""
    shape = shape_of(whole)
    if not shape:
        return bare(op)
    dim %= len(shape)
    names = [f"i{k}" for k in range(len(shape))]
    sizes = dict(zip(names, shape, strict=True))
    apart = size == step and shape[dim] % size == 0
    if apart:
        sizes |= {names[dim]: shape[dim] // size, "w": size}
    outer: Dims = tuple(
        (name,) if k != dim else (name, "w") if apart else () for k, name in enumerate(names)
    )
    inner: Dims = tuple((name,) if k != dim or apart else () for k, name in enumerate(names))
    inner = (*inner, ("w",) if apart else ())
    if not apart:
        del sizes[names[dim]]
    ins, outs = (outer, inner) if op.inputs[0] is whole else (inner, outer)
    return Formula(inputs=(ins,), outputs=(outs,), sizes=sizes, whole=frozenset({"w"} & set(sizes)))


def _numbers(op: Op, first: int) -> Iterator[int]:
    """The dim, the size and the step, which are arguments from `first` on."""
    return map(int_of, op.args[first : first + 3])


def _unfold(op: Op) -> Formula:
    return _windows(op, op.inputs[0], *_numbers(op, 1))


def _unfold_backward(op: Op) -> Formula:
    return _windows(op, op.outputs[0], *_numbers(op, 2))


ROWS = [
    Row(
        name="aten.unfold",
        formula=_unfold,
        cost=free,
        linear=linear_in((0,)),
        local=same,
        moves=True,
        view=True,
        note="windows along a dim, as a last one",
    ),
    Row(
        name="aten.unfold_backward",
        formula=_unfold_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=sized(1),
        note="adds windows up where they overlap",
    ),
]
