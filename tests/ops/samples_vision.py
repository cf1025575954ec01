"""Samples of convolution, pooling and the normalisations of images."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ops.calls import Sample, call
from ops.numbers import FLOATS, f, g

ONE, NONE = [1, 1], [0, 0]


def _convolutions() -> Iterator[Sample]:
    for dtype in FLOATS:
        x, weight, bias = f(2, 4, 5, 4, dtype=dtype), g(6, 4, 3, 3, dtype=dtype), f(6, dtype=dtype)
        yield from _convolve(x, weight, None, [2, 1], [1, 1], ONE, False, NONE, 1)
        yield from _convolve(x, weight, bias, ONE, [0, 1], ONE, False, NONE, 1)
    x = f(2, 8, 4, 4)
    yield from _convolve(x, g(8, 1, 3, 3), g(8), ONE, ONE, ONE, False, NONE, 8)
    yield from _convolve(x, g(12, 4, 1, 1), None, ONE, NONE, ONE, False, NONE, 2)
    yield from _convolve(f(2, 4, 6), g(2, 4, 3), None, [1], [2], [2], False, [0], 1)
    yield from _convolve(f(2, 4, 6), g(4, 1, 3), g(4), [1], [2], [1], False, [0], 4)
    yield from _convolve(f(2, 4, 3, 3), g(4, 6, 2, 2), g(6), [2, 2], NONE, ONE, True, NONE, 1)
    yield from _convolve(f(2, 4, 3, 3), g(4, 2, 2, 2), None, [2, 2], NONE, ONE, True, ONE, 2)
    yield from _convolve(f(2, 2, 2, 3, 2), g(4, 2, 1, 2, 1), None, [1] * 3, [0] * 3, [1] * 3)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool = False,
    output_padding: list[int] | None = None,
    groups: int = 1,
) -> Iterator[Sample]:
    rest = (stride, padding, dilation, transposed, output_padding or [0] * len(stride), groups)
    forward = call("aten.convolution", x, weight, bias, *rest)
    yield forward
    (out,) = forward.outputs
    grad = g(*out.shape, dtype=out.dtype)
    sizes = None if bias is None else list(bias.shape)
    with_bias = bias is not None
    # Torch's CPU kernels give the gradient of the weight wherever that of the bias is asked for.
    for asked in ([True, True, with_bias], [False, True, with_bias], [True, False, False]):
        yield call("aten.convolution_backward", grad, x, weight, sizes, *rest, asked)


def _batch_norms() -> Iterator[Sample]:
    for dtype in FLOATS:
        yield from _batch_norm(f(4, 6, 2, 4, dtype=dtype), g(6), f(6))
    yield from _batch_norm(f(4, 6, 2, 4), None, None)
    yield from _batch_norm(f(8, 6), g(6), f(6))
    yield from _batch_norm(f(4, 6, 2, 4), g(6), f(6), training=False)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool = True
) -> Iterator[Sample]:
    running = (f(x.shape[1]), g(x.shape[1]))
    name = "aten._native_batch_norm_legit_functional"
    forward = call(name, x, weight, bias, *running, training, 0.1, 1e-5)
    yield forward
    _, mean, invstd, *_ = forward.outputs
    grad = g(*x.shape, dtype=x.dtype)
    for asked in ([True, weight is not None, bias is not None], [False, False, bias is not None]):
        if any(asked):
            name, rest = "aten.native_batch_norm_backward", (*running, mean, invstd)
            yield call(name, grad, x, weight, *rest, training, 1e-5, asked)


def _group_norms() -> Iterator[Sample]:
    for dtype in FLOATS:
        yield from _group_norm(f(2, 8, 2, 3, dtype=dtype), g(8, dtype=dtype), f(8, dtype=dtype), 4)
    yield from _group_norm(f(2, 8, 3), g(8), f(8), 2)
    yield from _group_norm(f(2, 4, 3), None, None, 4)


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int
) -> Iterator[Sample]:
    sizes = (x.shape[0], x.shape[1], x[0, 0].numel(), groups)
    forward = call("aten.native_group_norm", x, weight, bias, *sizes, 1e-5)
    yield forward
    _, mean, rstd = forward.outputs
    asked = [True, weight is not None, bias is not None]
    grad = g(*x.shape, dtype=x.dtype)
    yield call("aten.native_group_norm_backward", grad, x, mean, rstd, weight, *sizes, asked)


def _pools() -> Iterator[Sample]:
    for x in (f(2, 4, 5, 4), f(4, 6, 4)):
        args: tuple[Any, ...] = ([3, 2], [2, 1], [1, 0], [1, 1], False)
        forward = call("aten.max_pool2d_with_indices", x, *args)
        yield forward
        out, places = forward.outputs
        yield call("aten.max_pool2d_with_indices_backward", g(*out.shape), x, *args, places)
        args = ([2, 2], [1, 2], [1, 0], True, False, None)
        forward = call("aten.avg_pool2d", x, *args)
        yield forward
        yield call("aten.avg_pool2d_backward", g(*forward.outputs[0].shape), x, *args)
    x = f(2, 4, 6, 4)
    yield call("aten._adaptive_avg_pool2d", x, [3, 1])
    yield call("aten._adaptive_avg_pool2d_backward", g(2, 4, 3, 1), x)


def _resamplings() -> Iterator[Sample]:
    x, size = f(2, 4, 2, 3), [4, 6]
    grad = g(2, 4, 4, 6)
    yield call("aten.upsample_nearest2d", x, size, 2.0, 2.0)
    yield call("aten.upsample_nearest2d", f(2, 4, 3, 3), [4, 2])
    yield call("aten.upsample_nearest2d_backward", grad, size, [2, 4, 2, 3], 2.0, 2.0)
    yield call("aten.upsample_bilinear2d", x, size, False)
    yield call("aten.upsample_bilinear2d_backward", grad, size, [2, 4, 2, 3], False)


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _convolutions,
    _batch_norms,
    _group_norms,
    _pools,
    _resamplings,
)
