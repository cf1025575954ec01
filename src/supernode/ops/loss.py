"""Losses: a mean over the batch is a sum over a count, both of which add up over chips."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from supernode.ir import DType, Op, TensorType, Value
from supernode.ops.expansion import Expansion
from supernode.ops.formula import Dims, Formula, bare, from_template, shape_of
from supernode.ops.lookup import letters
from supernode.ops.row import (
    Cost,
    Fresh,
    Row,
    linear_in,
    nonlinear,
    same,
    streaming,
    traffic,
    with_arg,
)

NONE, MEAN, SUM = 0, 1, 2
"""Values of ATen's `reduction` argument."""


def _nll_cost(op: Op) -> Cost:
    """One element a row is read, and its class weight where there are weights."""
    x, target = op.inputs[0].tensor, op.inputs[1].tensor
    picked = TensorType(x.dtype, target.shape).size_bytes * (len(op.inputs) - 1)
    _, written = traffic(op)
    return Cost(float(target.numel), picked + target.size_bytes, written, "vector", x.dtype)


def _nll(op: Op) -> Formula:
    n = letters(op.inputs[1])
    weights = ", v" * (len(op.inputs) - 2)
    loss = n if op.arg(3) == NONE else ""
    whole = f"{n} v" if op.arg(3) == MEAN else "v"
    return from_template(op, f"{n} v, {n}{weights} -> {loss}, ", whole=whole)


def _nll_backward(op: Op) -> Formula:
    n = letters(op.inputs[2])
    grad = n if shape_of(op.inputs[0]) else ""
    weights = ", v" * (len(op.inputs) - 4)
    return from_template(op, f"{grad}, {n} v, {n}{weights},  -> {n} v", whole="v")


def _expand_nll(op: Op, fresh: Fresh) -> list[Op] | None:
    """The mean as sum over count, each of which adds up over chips."""
    x, target, weights, reduction, ignore = op.args
    assert isinstance(x, Value)
    assert isinstance(target, Value)
    if weights is not None or reduction == NONE or len(target.tensor.shape) != 1:
        return None
    loss, count = op.outputs
    rows = TensorType(x.tensor.dtype, target.tensor.shape)
    counts = fresh(TensorType("bool", target.tensor.shape))
    picked, kept, total, ones = fresh(rows), fresh(rows), fresh(loss.type), fresh(rows)
    negative = fresh(loss.type) if reduction == MEAN else loss
    cast = (("dtype", DType(rows.dtype)),)
    ops = [
        replace(op, name="local.pick", args=(x, target, ()), outputs=(picked,)),
        replace(op, name="aten.ne.Scalar", args=(target, ignore), outputs=(counts,)),
        replace(op, name="aten.where.ScalarOther", args=(counts, picked, 0.0), outputs=(kept,)),
        replace(op, name="aten.sum", args=(kept,), outputs=(total,)),
        replace(op, name="aten.neg", args=(total,), outputs=(negative,)),
        replace(op, name="aten._to_copy", args=(counts,), kwargs=cast, outputs=(ones,)),
        replace(op, name="aten.sum", args=(ones,), outputs=(count,)),
    ]
    if reduction == MEAN:
        ops.append(replace(op, name="aten.div.Tensor", args=(negative, count), outputs=(loss,)))
    return ops


def _expand_nll_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    """-1/count of the incoming gradient at the target of each row that counts."""
    grad, x, target, weights, reduction, ignore, count = op.args
    assert isinstance(grad, Value)
    assert isinstance(x, Value)
    assert isinstance(target, Value)
    if weights is not None or reduction == NONE or len(target.tensor.shape) != 1:
        return None
    rows = TensorType(x.tensor.dtype, target.tensor.shape)
    counts = fresh(TensorType("bool", target.tensor.shape))
    scaled, negative = fresh(rows), fresh(rows)
    ops = [replace(op, name="aten.ne.Scalar", args=(target, ignore), outputs=(counts,))]
    scale = grad
    if reduction == MEAN:
        scale = fresh(grad.type)
        ops.append(replace(op, name="aten.div.Tensor", args=(grad, count), outputs=(scale,)))
    classes = x.tensor.shape[1]
    ops += [
        # Not a product: where no row counts, the scale is infinite.
        replace(op, name="aten.where.ScalarOther", args=(counts, scale, 0.0), outputs=(scaled,)),
        replace(op, name="aten.neg", args=(scaled,), outputs=(negative,)),
        replace(op, name="local.unpick", args=(negative, target, classes, ())),
    ]
    return ops


def _nll2d(op: Op) -> Formula:
    weights = ", v" * (len(op.inputs) - 2)
    loss = "n h w" if op.arg(3) == NONE else ""
    whole = "n h w v" if op.arg(3) == MEAN else "v"
    return from_template(op, f"n v h w, n h w{weights} -> {loss}, ", whole=whole)


def _nll2d_backward(op: Op) -> Formula:
    grad = "n h w" if shape_of(op.inputs[0]) else ""
    weights = ", v" * (len(op.inputs) - 4)
    return from_template(op, f"{grad}, n v h w, n h w{weights},  -> n v h w", whole="v")


def _rows(steps: Expansion, x: Value) -> Value:
    """Images [n, v, h, w] as rows [n h w, v]."""
    n, v, h, w = x.tensor.shape
    last = steps.emit("aten.permute", TensorType(x.tensor.dtype, (n, h, w, v)), x, (0, 2, 3, 1))
    return steps.emit(
        "aten.reshape", TensorType(x.tensor.dtype, (n * h * w, v)), last, (n * h * w, v)
    )


def _expand_nll2d(op: Op, fresh: Fresh) -> list[Op] | None:
    """The loss of pixels is that of rows."""
    x, target, weights, reduction, ignore = op.args
    assert isinstance(x, Value)
    assert isinstance(target, Value)
    if weights is not None or reduction == NONE:
        return None
    steps = Expansion(op, fresh)
    rows = _rows(steps, x)
    args = (rows, steps.view(target, target.tensor.numel), None, reduction, ignore)
    return [*steps.ops, replace(op, name="aten.nll_loss_forward", args=args)]


def _mean_to_sum(position: int) -> Callable[[Op, Fresh], list[Op] | None]:
    """The gradient of a mean is that of a sum, divided by the size of the whole."""

    def expand(op: Op, fresh: Fresh) -> list[Op] | None:
        grad, x = op.inputs[:2]
        if len(op.args) <= position or op.args[position] != MEAN:
            return None
        steps = Expansion(op, fresh)
        share = steps.like("aten.div.Scalar", grad, x.tensor.numel)
        summed = with_arg(op, position, SUM)
        return [*steps.ops, replace(summed, args=(share, *summed.args[1:]))]

    return expand


def _of_elements(op: Op) -> Formula:
    """A loss of each element by itself."""
    shape = shape_of(op.inputs[0])
    if any(shape_of(value) != shape for value in op.inputs):
        return bare(op)
    dims: Dims = tuple((f"i{k}",) for k in range(len(shape)))
    sizes = {dim[0]: size for dim, size in zip(dims, shape, strict=True)}
    kept = dims if shape_of(op.outputs[0]) == shape else ()
    return Formula(inputs=(dims,) * len(op.inputs), outputs=(kept,), sizes=sizes)


def _element_loss(position: int) -> Callable[[Op], Formula]:
    def rule(op: Op) -> Formula:
        formula = _of_elements(op)
        kind = "mean" if op.arg(position, "reduction", MEAN) == MEAN else "sum"
        return replace(formula, reduced=dict.fromkeys(formula.sizes, kind))

    return rule


def _element_loss_backward(position: int) -> Callable[[Op], Formula]:
    def rule(op: Op) -> Formula:
        x = shape_of(op.inputs[1])
        if any(shape_of(value) != x for value in op.inputs[2:]):
            return bare(op)
        dims: Dims = tuple((f"i{k}",) for k in range(len(x)))
        sizes: Mapping[str, int] = {d[0]: size for d, size in zip(dims, x, strict=True)}
        grad = dims if shape_of(op.inputs[0]) == x else ((),) * len(shape_of(op.inputs[0]))
        whole = (
            frozenset(sizes) if op.arg(position, "reduction", MEAN) == MEAN else frozenset[str]()
        )
        ins = (grad, *(dims,) * (len(op.inputs) - 1))
        return Formula(inputs=ins, outputs=(dims,), sizes=sizes, whole=whole)

    return rule


def _pair(name: str, position: int, flops: float) -> list[Row]:
    """Rows of a loss of elements and of its gradient; `position` is that of `reduction`."""
    return [
        Row(
            name=f"aten.{name}",
            formula=_element_loss(position),
            cost=streaming(flops),
            linear=nonlinear,
            local=same,
            note="the mean of the parts' means, each by its share, is the mean",
        ),
        Row(
            name=f"aten.{name}_backward",
            formula=_element_loss_backward(position + 1),
            cost=streaming(flops),
            linear=linear_in((0,)),
            local=same,
            expand=_mean_to_sum(position + 1),
            note="a mean divides by the size of the whole batch",
        ),
    ]


ROWS = [
    Row(
        name="aten.nll_loss_forward",
        formula=_nll,
        cost=_nll_cost,
        linear=nonlinear,
        local=same,
        expand=_expand_nll,
        note="the mean divides by the number of targets that count, known only to all chips",
    ),
    Row(
        name="aten.nll_loss_backward",
        formula=_nll_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        expand=_expand_nll_backward,
        note="the total weight it is given is the whole batch's",
    ),
    Row(
        name="aten.nll_loss2d_forward",
        formula=_nll2d,
        cost=_nll_cost,
        linear=nonlinear,
        local=same,
        expand=_expand_nll2d,
        note="the mean divides by the number of pixels that count, known only to all chips",
    ),
    Row(
        name="aten.nll_loss2d_backward",
        formula=_nll2d_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="the total weight it is given is the whole batch's",
    ),
    *_pair("mse_loss", 2, 3),
    *_pair("smooth_l1_loss", 2, 4),
    *_pair("huber_loss", 2, 4),
    *_pair("binary_cross_entropy", 3, 20),
    *_pair("soft_margin_loss", 2, 10),
    Row(
        name="aten.binary_cross_entropy_with_logits",
        formula=_element_loss(4),
        cost=streaming(20),
        linear=nonlinear,
        local=same,
        note="the mean of the parts' means, each by its share, is the mean",
    ),
]
