"""Reductions over dims: parts combine where one operation does it, else the dims are whole."""

import math
from collections.abc import Callable
from dataclasses import replace

from supernode.ir import Op, TensorType
from supernode.ops.expansion import Expansion
from supernode.ops.formula import Dims, Formula, shape_of
from supernode.ops.row import Fresh, Row, linear_in, nonlinear, passing, same, streaming

MEAN = "mean"
"""Parts whose mean is the true value; that of an unequal part is weighed by its share first."""
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


def _kept_whole(position: int, keepdim_at: int) -> Callable[[Op], Formula]:
    """A reduction whose parts do not combine by one operation: what it reduces is whole."""

    def rule(op: Op) -> Formula:
        formula = _reduce("", position, keepdim_at)(op)
        outputs = formula.outputs * len(op.outputs)
        return replace(formula, outputs=outputs, whole=frozenset(formula.reduced), reduced={})

    return rule


def _expand_variance(op: Op, fresh: Fresh) -> list[Op] | None:
    """The mean of the squares about the mean, which is known only to all chips."""
    x, out = op.inputs[0], op.outputs[0]
    correction = op.kwarg("correction")
    correction = 1 if correction is None else correction
    dims = tuple(sorted(_reduced_dims(op, 1)))
    count = math.prod(x.tensor.shape[dim] for dim in dims)
    if not x.tensor.shape or not isinstance(correction, int | float):
        return None
    degrees = max(count - correction, 0)
    steps = Expansion(op, fresh)
    thin = tuple(1 if k in dims else n for k, n in enumerate(x.tensor.shape))
    mean = steps.emit("aten.mean.dim", TensorType(x.tensor.dtype, thin), x, dims, True)
    centred = steps.like("aten.sub.Tensor", x, mean)
    squared = steps.like("aten.mul.Tensor", centred, centred)
    keep = bool(op.kwarg("keepdim", False))
    total = steps.emit("aten.sum.dim_IntList", out.tensor, squared, dims, keep)
    if op.name == "aten.var.correction":
        steps.give(out, "aten.div.Scalar", total, degrees)
    else:
        steps.give(out, "aten.sqrt", steps.like("aten.div.Scalar", total, degrees))
    return steps.ops


def _expand_logsumexp(op: Op, fresh: Fresh) -> list[Op] | None:
    """The largest, plus the log of the sum of what stands above it."""
    x, out = op.inputs[0], op.outputs[0]
    if not x.tensor.shape:
        return None
    dims, keep = tuple(sorted(_reduced_dims(op, 1))), bool(op.arg(2, "keepdim", False))
    steps = Expansion(op, fresh)
    thin = tuple(1 if k in dims else n for k, n in enumerate(x.tensor.shape))
    top = steps.emit("aten.amax", TensorType(x.tensor.dtype, thin), x, dims, True)
    above = steps.like("aten.exp", steps.like("aten.sub.Tensor", x, top))
    total = steps.emit("aten.sum.dim_IntList", out.tensor, above, dims, keep)
    flat = top if keep else steps.view(top, *out.tensor.shape)
    steps.give(out, "aten.add.Tensor", steps.like("aten.log", total), flat)
    return steps.ops


def _whole(
    name: str,
    note: str,
    *,
    keepdim_at: int = 2,
    flops: float = 1,
    expand: Callable[[Op, Fresh], list[Op] | None] | None = None,
) -> Row:
    return Row(
        name=f"aten.{name}",
        formula=_kept_whole(1, keepdim_at),
        cost=streaming(flops),
        linear=nonlinear,
        local=same,
        expand=expand,
        note=note,
    )


_PLACES = "places are counted in the whole dim"
_ABOUT = "about the mean of the whole"

WHOLE = [
    *(_whole(f"{name}.dim", _PLACES) for name in ("max", "min")),
    *(_whole(f"{name}", _PLACES) for name in ("argmax", "argmin")),
    *(
        _whole(f"{name}{kind}", "of booleans")
        for name in ("any", "all")
        for kind in ("", ".dim", ".dims")
    ),
    *(_whole(f"_is_{kind}_true", "of booleans") for kind in ("all", "any")),
    *(_whole(f"prod{kind}", "parts would have to be multiplied") for kind in ("", ".dim_int")),
    *(
        _whole(f"{name}.correction", _ABOUT, flops=4, expand=_expand_variance)
        for name in ("var", "std")
    ),
    _whole("var_mean.correction", _ABOUT, flops=4),
    _whole("logsumexp", "above the largest of the whole", flops=10, expand=_expand_logsumexp),
]

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
        note="the mean of the parts' means, each by its share, is the mean",
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
    *(
        Row(
            name=f"aten.{name}",
            formula=_norm,
            cost=streaming(2),
            linear=nonlinear,
            local=same,
            passes=_norm_passes,
            note="norms of parts combine by the root of the sum of their squares",
        )
        for name in ("linalg_vector_norm", "norm.ScalarOpt_dim")
    ),
    *(
        Row(
            name=f"aten.{kind}",
            formula=_reduce(kind, 9, 9),
            cost=streaming(1),
            linear=nonlinear,
            local=same,
            passes=passing(kind),
            note="over all dims",
        )
        for kind in ("max", "min")
    ),
    *WHOLE,
]
