"""Reductions over dims, and the scans and orderings that need a dim whole."""

from collections.abc import Callable
from dataclasses import replace

from supernode.ir import Op
from supernode.ops.formula import Dims, Formula, shape_of
from supernode.ops.row import Row, linear_in, nonlinear, passing, same, streaming

MEAN = "mean"
"""Parts of equal size whose mean is the true value."""
NORM2 = "norm2"
"""Parts whose root of the sum of squares is the true value."""


def _reduced_dims(op: Op, position: int) -> set[int]:
    rank = len(shape_of(op.inputs[0]))
    dims = op.arg(position, "dim")
    if dims is None or dims == ():
        return set(range(rank))
    return {int(dim) % rank for dim in (dims if isinstance(dims, tuple) else (dims,))}  # type: ignore[arg-type]


def _reduce(kind: str, position: int, keepdim_at: int) -> Callable[[Op], Formula]:
    def rule(op: Op) -> Formula:
        shape = shape_of(op.inputs[0])
        gone = _reduced_dims(op, position) if shape else set[int]()
        keep = bool(op.arg(keepdim_at, "keepdim", False))
        source: Dims = tuple((f"i{k}",) for k in range(len(shape)))
        target: Dims = tuple(
            () if k in gone else dim for k, dim in enumerate(source) if keep or k not in gone
        )
        sizes = {f"i{k}": size for k, size in enumerate(shape)}
        reduced = {f"i{k}": kind for k in gone}
        return Formula(inputs=(source,), outputs=(target,), sizes=sizes, reduced=reduced)

    return rule


_NORM_KINDS = {2: NORM2, 1: "sum", float("inf"): "max"}


def _norm_kind(op: Op) -> str | None:
    order = op.arg(1, "ord", 2)
    return _NORM_KINDS.get(order) if isinstance(order, int | float) else None


def _norm(op: Op) -> Formula:
    kind = _norm_kind(op)
    formula = _reduce(kind or "", 2, 3)(op)
    if kind is None:
        return replace(formula, whole=frozenset(formula.reduced), reduced={})
    return formula


def _norm_passes(op: Op) -> frozenset[str]:
    # The norm of norms is the norm only where both have the same order.
    return frozenset({NORM2}) if _norm_kind(op) == NORM2 else frozenset()


def _along_whole(op: Op) -> Formula:
    """The dim of a scan is whole, the others are free."""
    rank = len(shape_of(op.inputs[0]))
    dim = op.arg(1, "dim")
    assert isinstance(dim, int)
    dims: Dims = tuple(() if k == dim % max(rank, 1) else (f"i{k}",) for k in range(rank))
    sizes = {f"i{k}": size for k, size in enumerate(shape_of(op.inputs[0])) if dims[k]}
    return Formula(inputs=(dims,), outputs=(dims,) * len(op.outputs), sizes=sizes)


ROWS = [
    Row(
        name="aten.sum.dim_IntList",
        formula=_reduce("sum", 1, 2),
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="one addition an element",
    ),
    Row(
        name="aten.sum",
        formula=_reduce("sum", 9, 9),
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="over all dims",
    ),
    Row(
        name="aten.mean.dim",
        formula=_reduce(MEAN, 1, 2),
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="parts are of equal size, so the mean of their means is the mean",
    ),
    Row(
        name="aten.mean",
        formula=_reduce(MEAN, 9, 9),
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="over all dims",
    ),
    Row(
        name="aten.amax",
        formula=_reduce("max", 1, 2),
        cost=streaming(1),
        linear=nonlinear,
        local=same,
        passes=passing("max"),
        note="the largest of the parts' largest",
    ),
    Row(
        name="aten.amin",
        formula=_reduce("min", 1, 2),
        cost=streaming(1),
        linear=nonlinear,
        local=same,
        passes=passing("min"),
        note="the smallest of the parts' smallest",
    ),
    Row(
        name="aten.linalg_vector_norm",
        formula=_norm,
        cost=streaming(2),
        linear=nonlinear,
        local=same,
        passes=_norm_passes,
        note="norms of parts combine by the root of the sum of their squares",
    ),
    Row(
        name="aten.cumsum",
        formula=_along_whole,
        cost=streaming(1),
        linear=linear_in((0,)),
        local=same,
        note="a scan needs its dim whole",
    ),
]
