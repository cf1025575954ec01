"""Lookups by index: embedding tables and the picked log-probabilities of a loss.

A table split by rows is looked up on every chip for the rows it has (others give zero), so the
parts sum to the whole; the `local.*` forms know the rows of their chip by its coordinates.
"""

from dataclasses import replace

from supernode.ir import Arg, DType, Op, TensorType, Type, Value
from supernode.ops.formula import Formula, from_template, shape_of
from supernode.ops.row import (
    Cost,
    Fresh,
    Row,
    Split,
    linear_in,
    nonlinear,
    same,
    streaming,
    with_arg,
)

MEAN, SUM = 1, 2
"""Values of ATen's `reduction` argument."""


def _embedding(op: Op) -> Formula:
    ids = _letters(op.inputs[1])
    return from_template(op, f"v d, {ids} -> {ids} d")


def _embedding_backward(op: Op) -> Formula:
    ids = _letters(op.inputs[1])
    return from_template(op, f"{ids} d, {ids} -> v d")


def _letters(ids: Value) -> str:
    return " ".join(f"n{k}" for k in range(len(shape_of(ids))))


def _local_embedding(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    axes = split.get("v", ())
    if not axes:
        return op
    return replace(op, name="local.embedding", args=(*op.args[:2], axes), kwargs=())


def _local_embedding_backward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    axes = split.get("v", ())
    if not axes:
        return op
    (out,) = outputs
    assert isinstance(out, TensorType)
    args = (*op.args[:2], out.shape[0], op.arg(3), axes)
    return replace(op, name="local.embedding_backward", args=args, kwargs=())


def _lookup_cost(op: Op) -> Cost:
    """Only the rows looked up are read."""
    out, ids = op.outputs[0].tensor, op.inputs[1].tensor
    return Cost(0.0, out.size_bytes + ids.size_bytes, out.size_bytes, "vector", out.dtype)


def _nll(op: Op) -> Formula:
    mean = op.arg(3) == MEAN
    weights = ", v" * (len(op.inputs) - 2)
    formula = from_template(op, f"n v, n{weights} -> , ", whole="n v" if mean else "v")
    if op.arg(3) in (MEAN, SUM):
        return formula
    return from_template(op, f"n v, n{weights} -> n, ", whole="n v")


def _nll_backward(op: Op) -> Formula:
    grad = "n" if shape_of(op.inputs[0]) else ""
    weights = ", v" * (len(op.inputs) - 4)
    return from_template(op, f"{grad}, n v, n{weights},  -> n v", whole="v")


def _valid(op: Op, target: Value, ignore: Arg, dtype: str, fresh: Fresh) -> tuple[list[Op], Value]:
    """1 where the target counts, 0 where it is the ignored index."""
    shape = target.tensor.shape
    counts, weight = fresh(TensorType("bool", shape)), fresh(TensorType(dtype, shape))
    ops = [
        replace(op, name="aten.ne.Scalar", args=(target, ignore), kwargs=(), outputs=(counts,)),
        replace(
            op,
            name="aten._to_copy",
            args=(counts,),
            kwargs=(("dtype", DType(dtype)),),
            outputs=(weight,),
        ),
    ]
    return ops, weight


def _expand_nll(op: Op, fresh: Fresh) -> list[Op] | None:
    """The mean as sum over count, each of which adds up over chips."""
    x, target, weights, reduction, ignore = op.args
    if weights is not None or reduction not in (MEAN, SUM):
        return None
    assert isinstance(x, Value) and isinstance(target, Value)
    loss, count = op.outputs
    rows = TensorType(x.tensor.dtype, target.tensor.shape)
    ops, valid = _valid(op, target, ignore, rows.dtype, fresh)
    picked, kept, total = fresh(rows), fresh(rows), fresh(loss.type)
    negative = fresh(loss.type) if reduction == MEAN else loss
    ops += [
        replace(op, name="local.pick", args=(x, target, ()), outputs=(picked,)),
        replace(op, name="aten.mul.Tensor", args=(picked, valid), outputs=(kept,)),
        replace(op, name="aten.sum", args=(kept,), outputs=(total,)),
        replace(op, name="aten.neg", args=(total,), outputs=(negative,)),
        replace(op, name="aten.sum", args=(valid,), outputs=(count,)),
    ]
    if reduction == MEAN:
        ops.append(replace(op, name="aten.div.Tensor", args=(negative, count), outputs=(loss,)))
    return ops


def _expand_nll_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    """-1/count of the incoming gradient at the target of each row that counts."""
    grad, x, target, weights, reduction, ignore, count = op.args
    if weights is not None or reduction not in (MEAN, SUM):
        return None
    assert isinstance(grad, Value) and isinstance(x, Value) and isinstance(target, Value)
    (out,) = op.outputs
    rows = TensorType(x.tensor.dtype, target.tensor.shape)
    ops, valid = _valid(op, target, ignore, rows.dtype, fresh)
    scale = grad
    if reduction == MEAN:
        scale = fresh(grad.type)
        ops.append(replace(op, name="aten.div.Tensor", args=(grad, count), outputs=(scale,)))
    scaled, negative = fresh(rows), fresh(rows)
    classes = out.tensor.shape[1]
    ops += [
        replace(op, name="aten.mul.Tensor", args=(valid, scale), outputs=(scaled,)),
        replace(op, name="aten.neg", args=(scaled,), outputs=(negative,)),
        replace(op, name="local.unpick", args=(negative, target, classes, ())),
    ]
    return ops


def _local_pick(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    return with_arg(op, 2, split.get("v", ()))


def _local_unpick(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    (out,) = outputs
    assert isinstance(out, TensorType)
    return with_arg(with_arg(op, 2, out.shape[1]), 3, split.get("v", ()))


ROWS = [
    Row(
        name="aten.embedding",
        formula=_embedding,
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=_local_embedding,
        note="rows of a table by index",
    ),
    Row(
        name="aten.embedding_dense_backward",
        formula=_embedding_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=_local_embedding_backward,
        note="adds each gradient to its row of a zeroed table",
    ),
    Row(
        name="aten.nll_loss_forward",
        formula=_nll,
        cost=_lookup_cost,
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
        name="local.pick",
        formula=lambda op: from_template(op, "n v, n -> n"),
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=_local_pick,
        note="x[i, index[i]], zero where this chip does not have the column",
    ),
    Row(
        name="local.unpick",
        formula=lambda op: from_template(op, "n, n -> n v"),
        cost=streaming(0),
        linear=linear_in((0,)),
        local=_local_unpick,
        note="the adjoint of pick: zeros but for x[i] at column index[i]",
    ),
    Row(
        name="local.embedding",
        formula=_embedding,
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=same,
        note="embedding over the rows this chip has",
    ),
    Row(
        name="local.embedding_backward",
        formula=_embedding_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="embedding_dense_backward for the rows this chip has",
    ),
]
