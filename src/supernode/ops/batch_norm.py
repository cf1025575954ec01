"""Normalisation by the statistics of a batch, or of groups of channels.

In training the statistics are those of the whole batch, so the batch is whole for the op; `expand`
writes it as steps that split it, of which two add something up over the chips.
"""

import math
from dataclasses import replace

from supernode.ir import DType, Op, TensorType, Type, Value
from supernode.ops.expansion import Expansion
from supernode.ops.formula import Dims, Formula, from_template, shape_of
from supernode.ops.row import Fresh, Row, Split, linear_in, nonlinear, same, streaming, with_arg


def _images(x: Value) -> Dims:
    return (("n",), ("c",), *((f"r{k}",) for k in range(len(shape_of(x)) - 2)))


def _per_channel(op: Op, images: int, whole: bool) -> Formula:
    """The first `images` inputs are images, and all else is a number a channel."""
    x = op.inputs[0]
    dims = _images(x)
    channel: Dims = (("c",),)
    sizes = {dim[0]: size for dim, size in zip(dims, shape_of(x), strict=True)}

    def of(value: Value) -> Dims:
        # Outside of training there are no statistics to save: empty tensors.
        return channel if shape_of(value) == (sizes["c"],) else ((),)

    outs = tuple(dims if v.type == x.type and len(dims) > 1 else of(v) for v in op.outputs)
    return Formula(
        inputs=(*(dims,) * images, *map(of, op.inputs[images:])),
        outputs=outs,
        sizes=sizes,
        whole=frozenset(sizes) - {"c"} if whole else frozenset(),
    )


def _batch_norm(op: Op) -> Formula:
    # Outside of training, parts of a batch all give the same running statistics: no partial sums.
    return _per_channel(op, 1, True)


def _batch_norm_backward(op: Op) -> Formula:
    return _per_channel(op, 2, bool(op.args[7]))


def _over(x: Value) -> tuple[int, ...]:
    """All dims but the channels."""
    return tuple(k for k in range(len(shape_of(x))) if k != 1)


def _thin(x: Value, dtype: str) -> TensorType:
    """A number a channel, in the rank of the images."""
    return TensorType(dtype, (1, shape_of(x)[1], *(1 for _ in shape_of(x)[2:])))


def _wide(x: Value) -> str:
    """The dtype to compute in: 16-bit images are added up in float32, as PyTorch does."""
    return "float32" if x.tensor.dtype in ("bfloat16", "float16") else x.tensor.dtype


def _expand_batch_norm(op: Op, fresh: Fresh) -> list[Op]:
    """Mean, then variance about it, each a mean over the batch; the rest is pointwise."""
    if not op.args[5]:
        return _expand_inference(op, fresh)
    x, running, momentum = op.inputs[0], op.inputs[-2:], op.args[6]
    assert isinstance(momentum, float)
    steps = Expansion(op, fresh)
    _, save_mean, save_invstd, *updated = op.outputs
    wide = steps.cast(x, _wide(x))
    thin = _thin(x, wide.tensor.dtype)
    mean = steps.emit("aten.mean.dim", thin, wide, _over(x), True)
    centred = steps.like("aten.sub.Tensor", wide, mean)
    squared = steps.like("aten.mul.Tensor", centred, centred)
    variance = steps.emit("aten.mean.dim", thin, squared, _over(x), True)
    invstd = _normalise(steps, op, centred, variance)
    channels = shape_of(x)[1]
    _give_as(steps, save_mean, steps.view(mean, channels))
    _give_as(steps, save_invstd, steps.view(invstd, channels))
    count = x.tensor.numel // channels
    unbiased = steps.like("aten.mul.Scalar", variance, count / max(count - 1, 1))
    for new, old, now in zip(updated, running, (mean, unbiased), strict=True):
        kept = steps.like("aten.mul.Scalar", steps.cast(old, thin.dtype), 1 - momentum)
        now = steps.view(now, channels)
        _give_as(steps, new, steps.like("aten.add.Tensor", kept, now, alpha=momentum))
    return steps.ops


def _expand_inference(op: Op, fresh: Fresh) -> list[Op]:
    """The running statistics serve, and stay what they are; no others are saved."""
    x, (mean, variance) = op.inputs[0], op.inputs[-2:]
    steps = Expansion(op, fresh)
    _, *saved, new_mean, new_variance = op.outputs
    thin = _thin(x, _wide(x))
    wide = steps.cast(x, thin.dtype)
    centred = steps.like("aten.sub.Tensor", wide, _stood_up(steps, mean, thin))
    _normalise(steps, op, centred, _stood_up(steps, variance, thin))
    for value in saved:
        dtype = DType(value.tensor.dtype)
        steps.give(value, "aten.new_empty", x, value.tensor.shape, dtype=dtype)
    steps.give(new_mean, "aten.clone", mean)
    steps.give(new_variance, "aten.clone", variance)
    return steps.ops


def _normalise(steps: Expansion, op: Op, centred: Value, variance: Value) -> Value:
    """Gives the normalised images, scaled and shifted; returns one over their deviation."""
    invstd = steps.like("aten.rsqrt", steps.like("aten.add.Scalar", variance, op.args[7]))
    y = steps.like("aten.mul.Tensor", centred, invstd)
    for name, affine in zip(("mul", "add"), op.args[1:3], strict=True):
        if isinstance(affine, Value):
            factor = _stood_up(steps, affine, variance.tensor)
            y = steps.like(f"aten.{name}.Tensor", y, factor)
    _give_as(steps, op.outputs[0], y)
    return invstd


def _stood_up(steps: Expansion, x: Value, thin: TensorType) -> Value:
    """A number a channel, in the rank and the dtype of the images."""
    return steps.view(steps.cast(x, thin.dtype), *thin.shape)


def _give_as(steps: Expansion, out: Value, x: Value) -> None:
    """Gives `x` as `out`, in its dtype."""
    last = steps.ops.pop()
    if x.tensor.dtype == out.tensor.dtype:
        steps.ops.append(replace(last, outputs=(out,)))
        return
    steps.ops.append(last)
    cast = steps.cast(x, out.tensor.dtype)
    steps.ops.append(replace(steps.ops.pop(), outputs=(out,)))
    assert cast.tensor == out.tensor


def _expand_batch_norm_backward(op: Op, fresh: Fresh) -> list[Op] | None:
    """The two sums over the batch, which are the gradients of bias and weight, give that of x."""
    grad, x, mask = op.inputs[0], op.inputs[1], op.args[9]
    mean, invstd = op.inputs[-2:]
    assert isinstance(mask, tuple)
    if not op.args[7]:
        return None
    steps = Expansion(op, fresh)
    thin = _thin(x, _wide(x))
    grad, wide = steps.cast(grad, thin.dtype), steps.cast(x, thin.dtype)
    scale = _stood_up(steps, invstd, thin)
    centred = steps.like("aten.sub.Tensor", wide, _stood_up(steps, mean, thin))
    normal = steps.like("aten.mul.Tensor", centred, scale)
    product = steps.like("aten.mul.Tensor", grad, normal)
    of_bias = steps.emit("aten.sum.dim_IntList", thin, grad, _over(x), True)
    of_weight = steps.emit("aten.sum.dim_IntList", thin, product, _over(x), True)
    outputs = iter(op.outputs)
    if mask[0]:
        share = steps.like("aten.mul.Tensor", normal, of_weight)
        share = steps.like("aten.add.Tensor", share, of_bias)
        share = steps.like("aten.mul.Scalar", share, shape_of(x)[1] / x.tensor.numel)
        rest = steps.like("aten.mul.Tensor", steps.like("aten.sub.Tensor", grad, share), scale)
        if isinstance(weight := op.args[2], Value):
            rest = steps.like("aten.mul.Tensor", rest, _stood_up(steps, weight, thin))
        _give_as(steps, next(outputs), rest)
    for asked, total in zip(mask[1:], (of_weight, of_bias), strict=True):
        if asked:
            _give_as(steps, next(outputs), steps.view(total, shape_of(x)[1]))
    return steps.ops


def _group_norm(op: Op) -> Formula:
    x = f"n (g c){' 1' * (len(shape_of(op.inputs[0])) - 2)}"
    weights = ", (g c)" * (len(op.inputs) - 1)
    return from_template(op, f"{x}{weights} -> {x}, n g, n g", whole="c")


def _group_norm_backward(op: Op) -> Formula:
    x = f"n (g c){' 1' * (len(shape_of(op.inputs[0])) - 2)}"
    weights = ", (g c)" * (len(op.inputs) - 4)
    mask = op.args[9]
    assert isinstance(mask, tuple)
    grads = zip((x, "(g c)", "(g c)"), mask, strict=True)
    outs = ", ".join(dims for dims, asked in grads if asked)
    return from_template(op, f"{x}, {x}, n g, n g{weights} -> {outs}", whole="c")


def _with_sizes(op: Op, first: int, x: Value, groups: int) -> Op:
    """The numbers of samples, channels, pixels and groups, which are arguments of the op."""
    samples, channels, *space = shape_of(x)
    sizes = (samples, channels, math.prod(space), groups)
    for position, size in enumerate(sizes, first):
        op = with_arg(op, position, size)
    return op


def _local_group_norm(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    return _with_sizes(op, 3, op.inputs[0], shape_of(op.outputs[1])[1])


def _local_group_norm_backward(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    return _with_sizes(op, 5, op.inputs[0], shape_of(op.inputs[2])[1])


ROWS = [
    Row(
        name="aten._native_batch_norm_legit_functional",
        formula=_batch_norm,
        cost=streaming(8),
        linear=nonlinear,
        local=same,
        expand=_expand_batch_norm,
        note="in training the statistics are the whole batch's, whatever chip has which sample",
    ),
    Row(
        name="aten.native_batch_norm",
        formula=_batch_norm,
        cost=streaming(10),
        linear=nonlinear,
        local=same,
        note="of instances, whose channels are those of all samples; or with running statistics",
    ),
    Row(
        name="aten.native_batch_norm_backward",
        formula=_batch_norm_backward,
        cost=streaming(14),
        linear=linear_in((0,)),
        local=same,
        expand=_expand_batch_norm_backward,
        note="the gradient of x needs the sums over the whole batch",
    ),
    Row(
        name="aten.native_group_norm",
        formula=_group_norm,
        cost=streaming(8),
        linear=nonlinear,
        local=_local_group_norm,
        note="mean and variance of the channels of a group in one sample",
    ),
    Row(
        name="aten.native_group_norm_backward",
        formula=_group_norm_backward,
        cost=streaming(14),
        linear=linear_in((0,)),
        local=_local_group_norm_backward,
        note="gradients of weight and bias are sums over the samples",
    ),
]
