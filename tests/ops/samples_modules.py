"""Samples of the less common ops behind the modules of torch.nn."""

from collections.abc import Callable, Iterator

from torch import Tensor

from ops.calls import Sample, call
from ops.numbers import FLOATS, f, g

IMAGES = {1: f(2, 4, 5), 2: f(2, 4, 5, 4), 3: f(2, 4, 4, 5, 4)}
SINGLE = {1: f(4, 5), 2: f(4, 5, 4), 3: f(4, 4, 5, 4)}


def _of(out: Tensor) -> Tensor:
    return g(*out.shape, dtype=out.dtype)


def _pads() -> Iterator[Sample]:
    for images in (IMAGES, SINGLE):
        for dims, x in images.items():
            for kind in ("reflection", "replication"):
                name, size = f"aten.{kind}_pad{dims}d", [1, 2] * dims
                forward = call(name, x, size)
                yield forward
                yield call(f"{name}_backward", _of(forward.outputs[0]), x, size)


def _largest() -> Iterator[Sample]:
    for images in (IMAGES, SINGLE):
        for dims in (2, 3):
            x = images[dims]
            forward = call(f"aten.adaptive_max_pool{dims}d", x, [2] * dims)
            yield forward
            out, places = forward.outputs
            yield call(f"aten.adaptive_max_pool{dims}d_backward", _of(out), x, places)
            yield call(f"aten.max_unpool{dims}d", out, places, *_unpooled(x, dims))
            draws = f(2, 4, dims).sigmoid()[: 1 if x.dim() == dims + 1 else 2]
            sizes = [2] * dims, [2] * dims
            forward = call(f"aten.fractional_max_pool{dims}d", x, *sizes, draws)
            yield forward
            out, places = forward.outputs
            name = f"aten.fractional_max_pool{dims}d_backward"
            yield call(name, _of(out), x, *sizes, places)
        x = images[3]
        args = [2] * 3, [2, 1, 2], [1, 0, 1], [1] * 3, False
        forward = call("aten.max_pool3d_with_indices", x, *args)
        yield forward
        out, places = forward.outputs
        yield call("aten.max_pool3d_with_indices_backward", _of(out), x, *args, places)


def _unpooled(x: Tensor, dims: int) -> list[list[int]]:
    size = list(x.shape[-dims:])
    return [size] if dims == 2 else [size, [1] * 3, [0] * 3]


def _means() -> Iterator[Sample]:
    for x in (IMAGES[3], SINGLE[3]):
        args = [2] * 3, [1, 2, 1], [0, 1, 0], False, True, None
        forward = call("aten.avg_pool3d", x, *args)
        yield forward
        yield call("aten.avg_pool3d_backward", _of(forward.outputs[0]), x, *args)
        forward = call("aten._adaptive_avg_pool3d", x, [2, 1, 2])
        yield forward
        yield call("aten._adaptive_avg_pool3d_backward", _of(forward.outputs[0]), x)


def _resampled() -> Iterator[Sample]:
    corners = {"linear1d": 1, "trilinear3d": 3, "bicubic2d": 2}
    nearest = {"nearest1d": 1, "_nearest_exact2d": 2, "nearest3d": 3}
    for name, dims in (corners | nearest).items():
        base = f"aten._upsample{name}" if name.startswith("_") else f"aten.upsample_{name}"
        x = IMAGES[dims]
        size = [2 * n for n in x.shape[2:]]
        more = (False,) if name in corners else ()
        forward = call(base, x, size, *more)
        yield forward
        yield call(f"{base}_backward", _of(forward.outputs[0]), size, list(x.shape), *more)


def _moved() -> Iterator[Sample]:
    yield call("aten.pixel_shuffle", f(2, 4, 8, 2, 3), 2)
    yield call("aten.pixel_unshuffle", f(2, 4, 2, 4, 6), 2)
    yield call("aten.channel_shuffle", f(2, 4, 3), 2)
    window = [2, 2], [1, 1], [0, 1], [1, 2]
    for x in (f(4, 2, 4, 4), f(2, 4, 4)):
        forward = call("aten.im2col", x, *window)
        yield forward
        yield call("aten.col2im", forward.outputs[0], [4, 4], *window)


def _activations() -> Iterator[Sample]:
    for dtype in FLOATS:
        x, grad = f(4, 8, dtype=dtype), g(4, 8, dtype=dtype)
        yield call("aten.celu", x)
        for name in ("hardshrink", "softshrink"):
            yield call(f"aten.{name}", x, 0.3)
            yield call(f"aten.{name}_backward", grad, x, 0.3)
    x, grad = f(4, 6, 8), g(4, 6, 8)
    for slope in (f(1, 6, 1), f(1, 1, 1)):
        yield call("aten._prelu_kernel", x, slope)
        yield call("aten._prelu_kernel_backward", grad, x, slope)
    for eps in (None, 0.2):
        yield call("aten.logit", x.sigmoid(), eps)
        yield call("aten.logit_backward", grad, x.sigmoid(), eps)


def _losses() -> Iterator[Sample]:
    x, target = f(4, 8), f(4, 8, dtype=FLOATS[0]).sigmoid()
    signs = target.gt(0.5).float() * 2 - 1
    for reduction in (0, 1, 2):
        yield call("aten.binary_cross_entropy_with_logits", x, target, None, None, reduction)
        forward = call("aten.soft_margin_loss", x, signs, reduction)
        yield forward
        yield call("aten.soft_margin_loss_backward", _of(forward.outputs[0]), x, signs, reduction)
    yield call("aten.binary_cross_entropy_with_logits", x, target, g(8).exp(), None, 1)


def _others() -> Iterator[Sample]:
    dims = [1, 3], [0], [1, 2], [2, 3]
    yield call("aten._trilinear", f(4, 6), g(8, 6, 2), f(4, 2), *dims)
    yield call("aten._trilinear", f(4, 8), g(8, 6, 2), f(4, 2), [2, 3], [0], [1, 2], [1, 3])
    for order in (2.0, 1.0, 3.0, None):
        yield call("aten.norm.ScalarOpt_dim", f(4, 8), order, [1], True)
    yield call("aten.norm.ScalarOpt_dim", f(4, 8), 2.0, [0])
    x, running = f(1, 8, 6), (g(8), g(8).exp())
    yield call("aten.native_batch_norm", x, g(8), f(8), None, None, True, 0.1, 1e-5)
    yield call("aten.native_batch_norm", x, None, None, *running, False, 0.1, 1e-5)


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _pads,
    _largest,
    _means,
    _resampled,
    _moved,
    _activations,
    _losses,
    _others,
)
