"""Lookups by index: embedding tables and the picked log-probabilities of a loss.

A table split by rows is looked up on every chip for the rows it has (others give zero), so the
parts sum to the whole; the `local.*` forms know the rows of their chip by its coordinates.
"""

from dataclasses import replace

from supernode.ir import DType, Op, TensorType, Type, Value
from supernode.ops.formula import Dims, Formula, from_template, shape_of
from supernode.ops.row import (
    Cost,
    Fresh,
    Row,
    Split,
    linear_in,
    nonlinear,
    same,
    streaming,
    traffic,
    with_arg,
)

NONE, MEAN, SUM = 0, 1, 2
"""Values of ATen's `reduction` argument."""


def _embedding(op: Op, whole: str = "") -> Formula:
    ids = _letters(op.inputs[1])
    return from_template(op, f"v d, {ids} -> {ids} d", whole=whole)


def _embedding_backward(op: Op, whole: str = "") -> Formula:
    ids = _letters(op.inputs[1])
    return from_template(op, f"{ids} d, {ids} -> v d", whole=whole)


def _embedding_dense_backward(op: Op) -> Formula:
    # Scaling by frequency counts the ids of the whole batch.
    scaled = bool(op.arg(4, "scale_grad_by_freq"))
    return _embedding_backward(op, f"v {_letters(op.inputs[1])}" if scaled else "")


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
    """Of the table, no more is read than there is output."""
    out = op.outputs[0].tensor
    table = min(out.size_bytes, op.inputs[0].tensor.size_bytes)
    indices = sum(value.type.size_bytes for value in dict.fromkeys(op.inputs[1:]))
    return Cost(0.0, table + indices, out.size_bytes, "vector", out.dtype)


def _nll_cost(op: Op) -> Cost:
    """One element a row is read, and its class weight where there are weights."""
    x, target = op.inputs[0].tensor, op.inputs[1].tensor
    picked = TensorType(x.dtype, target.shape).size_bytes * (len(op.inputs) - 1)
    _, written = traffic(op)
    return Cost(float(target.numel), picked + target.size_bytes, written, "vector", x.dtype)


def _nll(op: Op) -> Formula:
    n = _letters(op.inputs[1])
    weights = ", v" * (len(op.inputs) - 2)
    loss = n if op.arg(3) == NONE else ""
    whole = f"{n} v" if op.arg(3) == MEAN else "v"
    return from_template(op, f"{n} v, {n}{weights} -> {loss}, ", whole=whole)


def _nll_backward(op: Op) -> Formula:
    n = _letters(op.inputs[2])
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


def _index(op: Op) -> Formula:
    """`x[:, i, j]`: the index tensors broadcast; their dims stand where theirs did."""
    x, indices = shape_of(op.inputs[0]), op.args[1]
    assert isinstance(indices, tuple)
    at = [k for k, index in enumerate(indices) if index is not None]
    ids = [shape_of(value) for value in op.inputs[1:]]
    if any(value.tensor.dtype in ("bool", "uint8") for value in op.inputs[1:]):
        every = [*map(shape_of, op.inputs), *map(shape_of, op.outputs)]
        bare = tuple(((),) * len(shape) for shape in every)
        return Formula(inputs=bare[:-1], outputs=bare[-1:], sizes={})
    kept: Dims = tuple((f"i{k}",) for k in range(len(x)) if k not in at)
    rank = max(map(len, ids))
    place = at[0] if at[-1] - at[0] == len(at) - 1 else 0
    picked: Dims = tuple((f"n{k}",) for k in range(rank))
    target = (*kept[:place], *picked, *kept[place:])
    sizes = {d[0]: n for d, n in zip(target, shape_of(op.outputs[0]), strict=True)}
    source: Dims = tuple(() if k in at else (f"i{k}",) for k in range(len(x)))
    dims = [
        tuple(() if n == 1 else d for d, n in zip(picked[rank - len(each) :], each, strict=True))
        for each in ids
    ]
    return Formula(inputs=(source, *dims), outputs=(target,), sizes=sizes)


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
        formula=_embedding_dense_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=_local_embedding_backward,
        note="adds each gradient to its row of a zeroed table",
    ),
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
        name="aten.index.Tensor",
        formula=_index,
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=same,
        note="a mask as an index gives a shape that depends on data, so it stays whole",
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
        formula=lambda op: _embedding(op, "v"),
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=same,
        note="embedding over the rows this chip has",
    ),
    Row(
        name="local.embedding_backward",
        formula=lambda op: _embedding_backward(op, "v"),
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="embedding_dense_backward for the rows this chip has",
    ),
]
