"""Elements written in order where a mask is: the embeddings of images between those of words.

Which elements of the source a sample takes depends on how many those before it take. Samples are
counted, and the source is whole on every chip. But one that has rows for each sample (its image) is
split as they are: they must then take all of their own, and a step in which they don't fails.
"""

from dataclasses import replace

from supernode.ir import Op, TensorType, Value
from supernode.ops.expansion import Expansion
from supernode.ops.formula import SUM, Dims, Formula, bare, shape_of
from supernode.ops.row import Fresh, Row, linear_in, same, sized, streaming

BATCH = "i0"
"""The factor of samples."""


def _samples(x: tuple[int, ...], mask: tuple[int, ...], source: tuple[int, ...]) -> Formula | None:
    """Operands and result as `x, mask, source -> x`; None where the mask has no dim of samples."""
    fits = len(x) == len(mask) > 1 and all(m in (n, 1) for n, m in zip(x, mask, strict=True))
    if not fits or mask[0] != x[0]:
        return None
    dims: Dims = tuple((f"i{k}",) for k in range(len(x)))
    masks: Dims = tuple(dim if n == m else () for dim, n, m in zip(dims, x, mask, strict=True))
    sources: Dims = tuple((f"r{k}",) for k in range(len(source)))
    if _is_own(x, mask, source):
        sources = ((BATCH,), *sources[1:])
    named = (*zip(dims, x, strict=True), *zip(sources, source, strict=True))
    sizes = {dim[0]: size for dim, size in named}
    whole = frozenset(sizes) - {BATCH}
    return Formula(inputs=(dims, masks, sources), outputs=(dims,), sizes=sizes, whole=whole)


def _is_own(x: tuple[int, ...], mask: tuple[int, ...], source: tuple[int, ...]) -> bool:
    """Whether the source has rows for each sample, and the mask takes rows."""
    return len(x) == len(source) == 3 and mask[2] == 1 and source[::2] == x[::2]


def _scattered(op: Op) -> Formula | None:
    x, mask, source = (shape_of(value) for value in op.inputs[:3])
    return _samples(x, mask, source) if x == shape_of(op.outputs[0]) else None


def _taken(op: Op) -> Formula | None:
    """Backward: `grad, mask -> source`."""
    grad, mask = (shape_of(value) for value in op.inputs[:2])
    found = _samples(grad, mask, shape_of(op.outputs[0]))
    if found is None:
        return None
    x, masks, sources = found.inputs
    return replace(found, inputs=(x, masks), outputs=(sources,), reduced={BATCH: SUM})


def _whole(op: Op) -> Formula:
    found = _scattered(op) if op.name == "aten.masked_scatter" else _taken(op)
    return bare(op) if found is None else replace(found, whole=frozenset(found.sizes))


def _by_sample(op: Op) -> Formula:
    """That of the ops on a chip's own samples, which take `starts` beside the others."""
    found = _scattered(op) if op.name == "local.masked_scatter" else _taken(op)
    assert found is not None
    last = len(op.inputs) - len(found.inputs)
    return replace(found, inputs=(*found.inputs, *(((BATCH,),),) * last))


def _starts(steps: Expansion, x: Value, mask: Value) -> Value:
    """At which element of the source each sample begins."""
    shape = mask.tensor.shape
    counts = TensorType("int64", shape[:1])
    found = steps.emit("aten.sum.dim_IntList", counts, mask, tuple(range(1, len(shape))))
    own = steps.like("aten.mul.Scalar", found, x.tensor.numel // mask.tensor.numel)
    return steps.like("aten.sub.Tensor", steps.like("aten.cumsum", own, 0), own)


def _expand(op: Op, fresh: Fresh) -> list[Op] | None:
    found = _scattered(op)
    if found is None:
        return None
    x, mask, source = op.inputs
    steps = Expansion(op, fresh)
    own = _is_own(x.tensor.shape, mask.tensor.shape, source.tensor.shape)
    starts = None if own else _starts(steps, x, mask)
    steps.give(op.outputs[0], "local.masked_scatter", x, mask, source, starts)
    return steps.ops


def _expand_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    if _taken(op) is None:
        return None
    grad, mask = op.inputs
    steps = Expansion(op, fresh)
    sizes = op.outputs[0].tensor.shape
    starts = (
        None if _is_own(grad.tensor.shape, mask.tensor.shape, sizes) else _starts(steps, grad, mask)
    )
    steps.give(op.outputs[0], "local.masked_scatter_backward", grad, mask, sizes, starts)
    return steps.ops


_COPY = streaming(0)
_BOTH = linear_in((0, 2))

ROWS = [
    Row(
        name="aten.masked_scatter",
        formula=_whole,
        cost=_COPY,
        linear=_BOTH,
        local=same,
        expand=_expand,
        note="a copy, other elements in order where a mask is",
    ),
    Row(
        name="aten.masked_scatter_backward",
        formula=_whole,
        cost=_COPY,
        linear=linear_in((0,)),
        local=same,
        expand=_expand_backward,
        note="elements in order, then zeros",
    ),
    Row(
        name="local.masked_scatter",
        formula=_by_sample,
        cost=_COPY,
        linear=_BOTH,
        local=same,
        placed=frozenset({BATCH}),
        note="the samples of a chip, from where they begin in the source, or each its own",
    ),
    Row(
        name="local.masked_scatter_backward",
        formula=_by_sample,
        cost=_COPY,
        linear=linear_in((0,)),
        local=sized(2),
        placed=frozenset({BATCH}),
        note="zeros where the samples of other chips are",
    ),
]
