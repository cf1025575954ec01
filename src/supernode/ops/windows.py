"""Windows along a dim (`unfold`): those that neither overlap nor leave a rest are its groups."""

from supernode.ir import HostType, Op, Type, Value
from supernode.ops.formula import Dims, Formula, bare, shape_of
from supernode.ops.row import Row, Split, free, linear_in, same, streaming, with_arg


def _windows(op: Op, whole: Value, windows: Value, dim: int, size: int, step: int) -> Formula:
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


def _numbers(op: Op, first: int) -> tuple[int, int, int]:
    dim, size, step = op.args[first : first + 3]
    assert isinstance(dim, int)
    assert isinstance(size, int)
    assert isinstance(step, int)
    return dim, size, step


def _unfold(op: Op) -> Formula:
    return _windows(op, op.inputs[0], op.outputs[0], *_numbers(op, 1))


def _unfold_backward(op: Op) -> Formula:
    return _windows(op, op.outputs[0], op.inputs[0], *_numbers(op, 2))


def _local_backward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    (out,) = outputs
    assert not isinstance(out, HostType)
    return with_arg(op, 1, out.shape)


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
        local=_local_backward,
        note="adds windows up where they overlap",
    ),
]
