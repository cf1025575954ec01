"""Contractions: the ops that the matrix unit does."""

from collections.abc import Callable
from math import prod

from supernode.ir import Arg, Op
from supernode.ops.expansion import Expansion
from supernode.ops.formula import Formula, from_template, shape_of
from supernode.ops.row import Cost, Fresh, Row, linear_in, nonlinear, same, streaming, traffic
from supernode.ops.shape import Product


def _mm(op: Op) -> Cost:
    a, b = (value.tensor.shape for value in op.inputs[-2:])
    groups, (m, k), n = prod(a[:-2]), a[-2:], b[-1]
    read, written = traffic(op)
    dtype = op.outputs[0].tensor.dtype
    shape = Product(groups=groups, m=m, n=n, k=k)
    return Cost(2.0 * groups * m * k * n, read, written, "matmul", dtype, shape)


def _expand(product: str) -> Callable[[Op, Fresh], list[Op] | None]:
    """The bias must be added once, so a split of k needs the sum apart from the product."""

    def expand(op: Op, fresh: Fresh) -> list[Op] | None:
        if op.kwargs:
            return None
        bias, left, right = op.args
        steps = Expansion(op, fresh)
        total = steps.emit(product, op.outputs[0].tensor, left, right)
        steps.give(op.outputs[0], "aten.add.Tensor", total, bias)
        return steps.ops

    return expand


def _biased(left: str, right: str, out: str) -> Callable[[Op], Formula]:
    """The bias may broadcast along any dims of the output."""

    def rule(op: Op) -> Formula:
        bias = shape_of(op.inputs[0])
        letters = out.split()[len(out.split()) - len(bias) :]
        dims = " ".join("1" if size == 1 else f for size, f in zip(bias, letters, strict=True))
        return from_template(op, f"{dims}, {left}, {right} -> {out}", whole="k")

    return rule


def _trilinear(op: Op) -> Formula:
    """Each input lacks the dims it is expanded along; the result lacks those that are summed."""
    *expanded, summed = op.args[3:7]
    rank = len(shape_of(op.inputs[0])) + len(_dims(expanded[0]))
    sides = [
        " ".join(f"d{k}" for k in range(rank) if k not in _dims(lacking))
        for lacking in (*expanded, summed)
    ]
    return from_template(op, f"{', '.join(sides[:3])} -> {sides[3]}")


def _dims(arg: Arg) -> tuple[Arg, ...]:
    assert isinstance(arg, tuple)
    return arg


def _trilinear_cost(op: Op) -> Cost:
    read, written = traffic(op)
    flops = 3.0 * prod(_trilinear(op).sizes.values())
    return Cost(flops, read, written, "vector", op.outputs[0].tensor.dtype)


def _dot(op: Op) -> Formula:
    row = (("k",),)
    return Formula(inputs=(row, row), outputs=((),), sizes={"k": op.inputs[0].tensor.numel})


def _distances(op: Op) -> Formula:
    """Of all pairs of rows; the numbers of a row are read together."""
    rows, others, pairs = _batched(op, "p k", "r k", "p r")
    return from_template(op, f"{rows}, {others} -> {pairs}", whole="k")


def _distances_backward(op: Op) -> Formula:
    """The gradient of the first rows, a sum over the second."""
    pairs, rows, others, same, out = _batched(op, "p r", "p k", "r k", "p r", "p k")
    return from_template(op, f"{pairs}, {rows}, {others}, {same} -> {out}", whole="k")


def _batched(op: Op, *sides: str) -> tuple[str, ...]:
    """Dims of the values of an op, behind those of a batch; one that is broadcast is whole."""
    batches = [shape_of(value)[:-2] for value in (*op.inputs, *op.outputs)]
    alike = len({*batches}) == 1
    letters = (" ".join(f"b{k}" if alike else "1" for k in range(len(b))) for b in batches)
    return tuple(f"{batch} {side}" for batch, side in zip(letters, sides, strict=True))


def _distances_cost(op: Op) -> Cost:
    read, written = traffic(op)
    flops = 3.0 * op.inputs[0].tensor.numel * op.inputs[1].tensor.shape[-2]
    return Cost(flops, read, written, "vector", op.outputs[0].tensor.dtype)


ROWS = [
    Row(
        name="aten.mv",
        formula=lambda op: from_template(op, "m k, k -> m"),
        cost=streaming(2),
        linear=linear_in((0,), (1,)),
        local=same,
        note="each weight is read and used once, so memory sets the time",
    ),
    *(
        Row(
            name=f"aten.{name}",
            formula=_dot,
            cost=streaming(2),
            linear=linear_in((0,), (1,)),
            local=same,
            note="the sum of the products of two rows",
        )
        for name in ("dot", "vdot")
    ),
    Row(
        name="aten._cdist_forward",
        formula=_distances,
        cost=_distances_cost,
        linear=nonlinear,
        local=same,
        note="distances of all pairs of rows",
    ),
    Row(
        name="aten._cdist_backward",
        formula=_distances_backward,
        cost=_distances_cost,
        linear=linear_in((0,)),
        local=same,
        note="the gradient of the first rows",
    ),
    Row(
        name="aten._trilinear",
        formula=_trilinear,
        cost=_trilinear_cost,
        linear=linear_in((0,), (1,), (2,)),
        local=same,
        note="the sum of products of three, of `nn.Bilinear`",
    ),
    Row(
        name="aten.mm",
        formula=lambda op: from_template(op, "m k, k n -> m n"),
        cost=_mm,
        linear=linear_in((0,), (1,)),
        local=same,
        note="2mkn FLOP",
    ),
    Row(
        name="aten.bmm",
        formula=lambda op: from_template(op, "b m k, b k n -> b m n"),
        cost=_mm,
        linear=linear_in((0,), (1,)),
        local=same,
        note="2bmkn FLOP",
    ),
    Row(
        name="aten.addmm",
        formula=_biased("m k", "k n", "m n"),
        cost=_mm,
        linear=linear_in((0, 1), (0, 2)),
        local=same,
        expand=_expand("aten.mm"),
        note="2mkn FLOP: the bias joins in the epilogue; k splits only after `expand`",
    ),
    Row(
        name="aten.baddbmm",
        formula=_biased("b m k", "b k n", "b m n"),
        cost=_mm,
        linear=linear_in((0, 1), (0, 2)),
        local=same,
        expand=_expand("aten.bmm"),
        note="2bmkn FLOP: the bias joins in the epilogue; k splits only after `expand`",
    ),
]
