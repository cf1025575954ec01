"""Ops in which the order along a dim counts, so it is whole: sorts, scans, shifts, triangles."""

from collections.abc import Callable

from supernode.ir import Op
from supernode.ops.formula import Dims, Formula, alike_but, bare, shape_of
from supernode.ops.row import Cost, Row, linear_in, nonlinear, same, streaming

Rule = Callable[[Op], Formula]


def _along(position: int) -> Rule:
    """One dim is whole, by default the last."""

    def rule(op: Op) -> Formula:
        rank = len(shape_of(op.inputs[0]))
        dim = op.arg(position, "dim", -1)
        assert isinstance(dim, int)
        return alike_but(op, {dim % max(rank, 1)})

    return rule


def _listed(position: int) -> Rule:
    """Several dims are whole: all, where none is named."""

    def rule(op: Op) -> Formula:
        rank = len(shape_of(op.inputs[0]))
        dims = op.arg(position, "dims", ())
        assert isinstance(dims, tuple)
        named = {dim % max(rank, 1) for dim in dims if isinstance(dim, int)}
        return alike_but(op, named or range(rank))

    return rule


def _flip(op: Op) -> Formula:
    return alike_but(op, ()) if op.args[1] == () else _listed(1)(op)


def _triangle(op: Op) -> Formula:
    rank = len(shape_of(op.inputs[0]))
    return alike_but(op, (rank - 2, rank - 1))


def _histogram(op: Op) -> Formula:
    """With given bounds, counts of parts add up; else they are those of the whole."""
    if op.arg(2, "min", 0) == op.arg(3, "max", 0):
        return bare(op)
    shape = shape_of(op.inputs[0])
    dims: Dims = tuple((f"i{k}",) for k in range(len(shape)))
    sizes = {dim[0]: size for dim, size in zip(dims, shape, strict=True)}
    return Formula(inputs=(dims,), outputs=(((),),), sizes=sizes)


def _sort_cost(op: Op) -> Cost:
    """A comparison of each element with each halving of its row."""
    x = op.inputs[0].tensor
    steps = max(1, max(x.shape, default=1)).bit_length()
    return streaming(steps)(op)


def _row(name: str, formula: Rule, note: str, linear: bool = False) -> Row:
    return Row(
        name=f"aten.{name}",
        formula=formula,
        cost=_sort_cost if "sort" in name or "topk" in name else streaming(1),
        linear=linear_in((0,)) if linear else nonlinear,
        local=same,
        note=note,
    )


ROWS = [
    _row("topk", _along(2), "the largest of each row, and their places"),
    _row("sort", _along(1), "each row in order, and where each was"),
    _row("sort.stable", _along(9), "each row in order, and where each was"),
    _row("cumsum", _along(1), "a scan needs its dim whole", linear=True),
    _row("cumprod", _along(1), "a scan needs its dim whole"),
    _row("logcumsumexp", _along(1), "a scan needs its dim whole"),
    _row("cummax", _along(1), "a scan needs its dim whole"),
    _row("cummin", _along(1), "a scan needs its dim whole"),
    _row("flip", _flip, "a copy, some dims back to front", linear=True),
    _row("roll", _listed(2), "a copy, some dims shifted around", linear=True),
    _row("tril", _triangle, "a copy, zero above a diagonal", linear=True),
    _row("triu", _triangle, "a copy, zero below a diagonal", linear=True),
    _row("glu", _along(1), "two halves of a dim belong together"),
    _row("glu_backward", _along(2), "two halves of a dim belong together", linear=True),
    _row("histc", _histogram, "counts of parts add up where the bounds are given"),
    _row("bincount", bare, "how many bins there are depends on the data"),
]
