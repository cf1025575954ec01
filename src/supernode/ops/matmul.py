"""Contractions: the ops that the matrix unit does."""

from dataclasses import replace

from supernode.ir import Op, Value
from supernode.ops.formula import Formula, from_template, shape_of
from supernode.ops.row import Cost, Fresh, Row, linear_in, same, traffic


def _contraction(op: Op, m_k_n: tuple[int, ...]) -> Cost:
    flops = 2.0
    for size in m_k_n:
        flops *= size
    read, written = traffic(op)
    return Cost(flops, read, written, "matmul", op.outputs[0].tensor.dtype)


def _mm(op: Op) -> Cost:
    a, b = (value.tensor.shape for value in op.inputs[-2:])
    return _contraction(op, (*a, b[-1]))


def _expand_addmm(op: Op, fresh: Fresh) -> list[Op] | None:
    """The bias must be added once, so a split of k needs the sum apart from the product."""
    bias, left, right = op.args
    assert isinstance(bias, Value)
    if op.kwargs:
        return None
    out = op.outputs[0]
    product = fresh(out.type)
    mm = replace(op, name="aten.mm", args=(left, right), outputs=(product,))
    add = replace(op, name="aten.add.Tensor", args=(product, bias), outputs=(out,))
    return [mm, add]


def _addmm(op: Op) -> Formula:
    """The bias may broadcast along m, n or both."""
    bias = shape_of(op.inputs[0])
    letters = ("m", "n")[2 - len(bias) :]
    dims = " ".join("1" if size == 1 else f for size, f in zip(bias, letters, strict=True))
    return from_template(op, f"{dims}, m k, k n -> m n", whole="k")


ROWS = [
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
        formula=_addmm,
        cost=_mm,
        linear=linear_in((0, 1), (0, 2)),
        local=same,
        expand=_expand_addmm,
        note="2mkn FLOP: the bias joins in the epilogue; k splits only after `expand`",
    ),
]
