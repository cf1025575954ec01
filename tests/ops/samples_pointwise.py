"""Samples of pointwise ops and casts."""

from collections.abc import Callable, Iterator

import torch

from ops.calls import Host, Sample, call
from ops.numbers import FLOATS, f, g, ids, mask

BINARY = ("add", "sub", "mul", "div")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
UNARY = ("abs", "relu", "sign", "square", "exp", "sin", "cos", "tanh", "sigmoid", "silu", "erf")
POSITIVE = ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal")
LOGICAL = (
    "bitwise_and.Tensor",
    "bitwise_or.Tensor",
    "bitwise_xor.Tensor",
    "logical_and",
    "logical_or",
    "logical_xor",
)
MORE_UNARY = (
    *("sgn", "floor", "ceil", "round", "trunc", "isnan", "isinf", "erfc", "exp2", "expm1", "tan"),
    *("atan", "sinh", "cosh", "mish", "hardswish", "hardsigmoid"),
)


def _binary() -> Iterator[Sample]:
    for name in BINARY:
        tensor, scalar = f"aten.{name}.Tensor", f"aten.{name}.Scalar"
        for dtype in FLOATS:
            yield call(tensor, f(4, 8, dtype=dtype), g(4, 8, dtype=dtype))
        yield call(tensor, f(2, 4, 8), g(4, 1))
        yield call(tensor, f(4, 1), g(2, 1, 8))
        yield call(tensor, ids(4, 2, below=9), ids(4, 2, below=5) + 1)
        yield call(tensor, f(4, 8), 2.5)
        yield call(tensor, f(4, 8), Host(2.5))
        yield call(scalar, f(4, 8), 3)
    for name in ("add", "sub"):
        yield call(f"aten.{name}.Tensor", f(4, 8), g(8), alpha=-0.5)
    both = f(4, 4)
    yield call("aten.mul.Tensor", both, both)
    yield call("aten.add.Tensor", both, both)
    yield call("aten.mul.Tensor", f(4, 8), mask(4, 8))
    yield call("aten.rsub.Scalar", f(4, 8), 1.0)
    for name in COMPARISONS:
        yield call(f"aten.{name}.Tensor", ids(4, 8, below=3), ids(4, 1, below=3))
        yield call(f"aten.{name}.Scalar", f(4, 8), 0)
    for name in ("maximum", "minimum", "fmax", "fmin", "logaddexp2"):
        yield call(f"aten.{name}", f(4, 8), g(8))
    for name in LOGICAL:
        yield call(f"aten.{name}", mask(4, 8), mask(2, 1, 8))
    yield call("aten.bitwise_and.Tensor", ids(4, 8, below=9), ids(4, 8, below=5))
    for name in ("fmod", "remainder"):
        yield call(f"aten.{name}.Tensor", ids(4, 8, below=9), ids(8, below=5) + 1)
        yield call(f"aten.{name}.Scalar", ids(4, 8, below=9) - 4, 3)
    yield call("aten.floor_divide", ids(4, 8, below=9) - 4, 2)
    yield call("aten.floor_divide", ids(4, 8, below=9), ids(8, below=5) + 1)
    yield call("aten.div.Tensor_mode", f(4, 8), g(8), rounding_mode="floor")
    for name in ("atan2", "hypot", "logaddexp", "copysign.Tensor", "xlogy.Tensor"):
        yield call(f"aten.{name}", f(4, 8), g(8))
    yield call("aten.rsub.Tensor", f(4, 8), g(8))
    yield call("aten.pow.Tensor_Tensor", g(4, 8), f(8))
    yield call("aten.pow.Scalar", 10000.0, f(4, 8))


def _unary() -> Iterator[Sample]:
    for name in (*UNARY, *MORE_UNARY):
        yield call(f"aten.{name}", f(4, 8))
    for name in POSITIVE:
        yield call(f"aten.{name}", g(4, 8))
    for name in ("neg", "gelu", "rsqrt", "silu"):
        for dtype in FLOATS:
            yield call(f"aten.{name}", g(2, 4, 1, dtype=dtype))
    yield call("aten.gelu", f(4, 8), approximate="tanh")
    yield call("aten.softplus", f(4, 8), 2.0, 5)
    yield call("aten.bitwise_not", mask(4, 8))
    yield call("aten.logical_not", f(4, 8))
    yield call("aten.clamp", f(4, 8), -0.5, 0.5)
    yield call("aten.clamp", f(4, 8), None, 1.0)
    yield call("aten.clamp.Tensor", f(4, 8), -g(8), g(4, 1))
    yield call("aten.clamp_min.Tensor", f(4, 8), g(8))
    yield call("aten.clamp_max.Tensor", f(4, 8), g(8))
    for name in ("hardtanh", "leaky_relu", "elu"):
        yield call(f"aten.{name}", f(4, 8))
    yield call("aten.threshold", f(4, 8), 0.5, -1.0)
    yield call("aten.nan_to_num", f(4, 8))
    yield call("aten.log_sigmoid_forward", f(4, 8))
    for name in ("asin", "acos", "atanh", "erfinv"):
        yield call(f"aten.{name}", f(4, 8).tanh())
    for name in ("asinh", "sinc", "frac"):
        yield call(f"aten.{name}", f(4, 8))
    for name in ("lgamma", "digamma"):
        yield call(f"aten.{name}", g(4, 8))
    yield call("aten.acosh", g(4, 8) + 1)
    yield call("aten.clamp_min", f(4, 8), 0)
    yield call("aten.clamp_max", f(4, 8), Host(0.5))
    yield call("aten.pow.Tensor_Scalar", g(4, 8), Host(0.5))
    yield call("aten.pow.Tensor_Scalar", f(4, 8), 2)


def _optimizer() -> Iterator[Sample]:
    for dtype in FLOATS:
        x, y, z = (make(8, 4, dtype=dtype) for make in (f, g, g))
        yield call("aten.lerp.Scalar", x, y, 0.1)
        yield call("aten.addcmul", x, y, z.clone(), value=0.5)
        yield call("aten.addcdiv", x, y, z.clone(), value=Host(-1e-2))
    yield call("aten.lerp.Scalar", f(8), g(8), Host(0.9))
    yield call("aten.lerp.Tensor", f(8, 4), g(8, 4), g(4))
    yield call("aten.addcmul", f(8, 4), g(4), f(8, 1))
    yield call("aten.addcdiv", f(8, 4), f(8, 1), g(4))
    yield call("aten.copy", f(4, 8), g(8))
    yield call("aten.copy", f(4, 8, dtype=torch.bfloat16), f(4, 8))


def _selecting() -> Iterator[Sample]:
    yield call("aten.where.self", mask(4, 8), f(4, 8), g(4, 8))
    yield call("aten.where.self", mask(8), f(4, 1), g())
    for other in (0.0, 1.5):
        yield call("aten.where.ScalarOther", mask(4, 8), f(4, 8), other)
        yield call("aten.where.ScalarOther", mask(4, 8), g(), other)
        yield call("aten.masked_fill.Scalar", f(2, 4, 8), mask(4, 1), other)
    yield call("aten.masked_fill.Scalar", f(4, 8), mask(4, 8), Host(0.0))
    yield call("aten.masked_fill.Tensor", f(4, 8), mask(4, 8), g())


_DRAW = (Host(2**40 + 7), Host(3), Host(5))
"""Seed, step and number of the draw."""


def _random() -> Iterator[Sample]:
    for kind in ("uniform", "normal", "exponential"):
        for dtype in FLOATS:
            yield call(f"random.{kind}", *_DRAW, (4, 8), dtype=dtype)
        yield call(f"random.{kind}", *_DRAW, (8, 2, 6), dtype=torch.float64)
    for dtype in (*FLOATS, torch.bool, torch.int64):
        yield call("random.bernoulli", *_DRAW, (4, 8), 0.5, dtype=dtype)
    yield call("random.integer", *_DRAW, (4, 8), -3, 2**40, dtype=torch.int64)
    yield call("random.integer", *_DRAW, (4, 8), 0, 8, dtype=torch.float32)
    yield call("aten.native_dropout_backward", f(4, 8), mask(4, 8), 2.0)


def _casts() -> Iterator[Sample]:
    yield call("aten._to_copy", f(4, 8), dtype=torch.bfloat16)
    yield call("aten._to_copy", f(4, 8, dtype=torch.bfloat16), dtype=torch.float32)
    yield call("aten._to_copy", f(4, 8), dtype=torch.int64)
    yield call("aten._to_copy", mask(4, 8), dtype=torch.float32)
    yield call("aten._to_copy", ids(4, 8, below=3), dtype=torch.bool)
    yield call("aten._to_copy", f(4, 8))


def _backward() -> Iterator[Sample]:
    for dtype in FLOATS:
        grad, x = f(4, 8, dtype=dtype), g(4, 8, dtype=dtype)
        yield call("aten.silu_backward", grad, x)
        yield call("aten.gelu_backward", grad, x)
        yield call("aten.gelu_backward", grad, x, approximate="tanh")
        yield call("aten.sigmoid_backward", grad, x.sigmoid())
        yield call("aten.tanh_backward", grad, x.tanh())
        yield call("aten.threshold_backward", grad, x - 1, 0)
        yield call("aten.softplus_backward", grad, x, 2.0, 5)
        yield call("aten.hardtanh_backward", grad, x - 1, -0.2, 0.2)
        yield call("aten.leaky_relu_backward", grad, x - 1, 0.1, False)
        yield call("aten.elu_backward", grad, 1.0, 1.0, 1.0, False, x - 1)
        buffer = (-x.abs()).exp()
        yield call("aten.log_sigmoid_backward", grad, x, buffer)
        for name in ("hardswish", "hardsigmoid", "mish"):
            yield call(f"aten.{name}_backward", grad, 4 * x - 3)


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _binary,
    _unary,
    _optimizer,
    _selecting,
    _random,
    _casts,
    _backward,
)
