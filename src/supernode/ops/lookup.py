"""Lookups by index: embedding tables and the picked log-probabilities of a loss.

A table split by rows is looked up on every chip for the rows it has (others give zero), so the
parts sum to the whole; the `local.*` forms know the rows of their chip by its coordinates.
"""

from dataclasses import replace

from supernode.ir import Op, TensorType, Type, Value
from supernode.ops.formula import Formula, bare, from_template, shape_of
from supernode.ops.row import (
    Cost,
    Row,
    Split,
    linear_in,
    nonlinear,
    same,
    streaming,
    traffic,
    with_arg,
)


def _embedding(op: Op, whole: str = "") -> Formula:
    ids = letters(op.inputs[1])
    return from_template(op, f"v d, {ids} -> {ids} d", whole=whole)


def _embedding_backward(op: Op, whole: str = "") -> Formula:
    ids = letters(op.inputs[1])
    return from_template(op, f"{ids} d, {ids} -> v d", whole=whole)


def _embedding_dense_backward(op: Op) -> Formula:
    # Scaling by frequency counts the ids of the whole batch.
    scaled = bool(op.arg(4, "scale_grad_by_freq"))
    return _embedding_backward(op, f"v {letters(op.inputs[1])}" if scaled else "")


def letters(ids: Value) -> str:
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


def _bag_cost(op: Op) -> Cost:
    """Of the table one row for each index, and no more than there is."""
    read, written = traffic(op)
    table, indices = (value.tensor for value in op.inputs[:2])
    share = min(indices.numel / table.shape[0], 1.0)
    rows = share * table.size_bytes
    added = share * table.numel
    return Cost(added, read - table.size_bytes + rows, written, "vector", table.dtype)


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
        placed=frozenset("v"),
        note="rows of a table by index",
    ),
    Row(
        name="aten.embedding_dense_backward",
        formula=_embedding_dense_backward,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=_local_embedding_backward,
        placed=frozenset("v"),
        note="adds each gradient to its row of a zeroed table",
    ),
    Row(
        name="aten._embedding_bag",
        formula=bare,
        cost=_bag_cost,
        linear=nonlinear,
        local=same,
        note="sums, means or maxima of bags of rows, which begin at offsets a run knows",
    ),
    Row(
        name="aten._embedding_bag_backward",
        formula=bare,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="adds each bag's gradient to its rows of a zeroed table",
    ),
    Row(
        name="local.pick",
        formula=lambda op: from_template(op, "n v, n -> n"),
        cost=_lookup_cost,
        linear=linear_in((0,)),
        local=_local_pick,
        placed=frozenset("v"),
        note="x[i, index[i]], zero where this chip does not have the column",
    ),
    Row(
        name="local.unpick",
        formula=lambda op: from_template(op, "n, n -> n v"),
        cost=streaming(0),
        linear=linear_in((0,)),
        local=_local_unpick,
        placed=frozenset("v"),
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
