"""At least one sample call for every row of the op table; the proof of a row walks them.

Sizes are even, so that every factor can be split, and small, so that the proof takes seconds.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ops.calls import Host, Sample, call

FLOATS = (torch.float32, torch.bfloat16)
BINARY = ("add", "sub", "mul", "div")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
UNARY = ("abs", "relu", "sign", "square", "exp", "sin", "cos", "tanh", "sigmoid", "silu", "erf")
POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")


def f(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers; the same for one shape."""
    generator = torch.Generator().manual_seed(1 + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def g(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Other numbers than `f`, none near zero, all positive."""
    generator = torch.Generator().manual_seed(100 + sum(shape))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5).to(dtype)


def ids(*shape: int, below: int) -> Tensor:
    """Indices."""
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(7))


def mask(*shape: int) -> Tensor:
    """True and False."""
    return f(*shape) > 0


@cache
def samples() -> dict[str, list[Sample]]:
    """The samples of each op by its name."""
    found: dict[str, list[Sample]] = {}
    for family in _FAMILIES:
        for sample in family():
            found.setdefault(sample.op.name, []).append(sample)
    return found


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
    for name in ("maximum", "minimum"):
        yield call(f"aten.{name}", f(4, 8), g(8))
    for name in ("bitwise_and.Tensor", "bitwise_or.Tensor", "logical_and", "logical_or"):
        yield call(f"aten.{name}", mask(4, 8), mask(2, 1, 8))
    yield call("aten.bitwise_and.Tensor", ids(4, 8, below=9), ids(4, 8, below=5))
    yield call("aten.pow.Tensor_Tensor", g(4, 8), f(8))
    yield call("aten.pow.Scalar", 10000.0, f(4, 8))


def _unary() -> Iterator[Sample]:
    for name in UNARY:
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


def _matmuls() -> Iterator[Sample]:
    for dtype in FLOATS:
        yield call("aten.mm", f(4, 8, dtype=dtype), g(8, 6, dtype=dtype))
        yield call("aten.bmm", f(2, 4, 8, dtype=dtype), g(2, 8, 6, dtype=dtype))
        yield call("aten.addmm", g(6, dtype=dtype), f(4, 8, dtype=dtype), g(8, 6, dtype=dtype))
    square = f(4, 4)
    yield call("aten.mm", square, square)
    yield call("aten.mm", f(1, 8), g(8, 4))
    for bias in (g(4, 6), g(4, 1), g(1, 6), g(1), g(1, 1), g()):
        yield call("aten.addmm", bias, f(4, 8), g(8, 6))
    yield call("aten.addmm", g(6), f(4, 8), g(8, 6), beta=0.5, alpha=2)


def _attention() -> Iterator[Sample]:
    bf16 = torch.bfloat16
    yield from _attend(f(2, 4, 8, 4), g(2, 4, 8, 4))
    yield from _attend(f(2, 4, 8, 4), g(2, 4, 8, 4), causal=True)
    yield from _attend(f(2, 4, 8, 4, dtype=bf16), g(2, 4, 8, 4, dtype=bf16), causal=True)
    yield from _attend(f(2, 4, 6, 4), g(2, 4, 8, 4), scale=0.25)
    yield from _attend(f(2, 4, 8, 4), g(2, 2, 8, 4), causal=True)
    yield from _attend(f(2, 4, 8, 4), g(2, 1, 8, 4))
    for shape in ((8, 6), (1, 1, 8, 6), (2, 1, 8, 6), (2, 4, 1, 6), (1, 4, 8, 6)):
        yield from _attend(f(2, 4, 8, 4), g(2, 2, 6, 4), attn_mask=f(*shape))


def _attend(q: Tensor, k: Tensor, causal: bool = False, **kwargs: Any) -> Iterator[Sample]:
    name, v = "aten._scaled_dot_product_flash_attention_for_cpu", k.flip(2) - 1
    forward = call(name, q, k, v, 0.0, causal, **kwargs)
    yield forward
    out, lse = forward.outputs
    grad = f(*out.shape, dtype=out.dtype)
    yield call(f"{name}_backward", grad, q, k, v, out, lse, 0.0, causal, **kwargs)


def _softmaxes() -> Iterator[Sample]:
    for dim in (-1, 0, 1):
        for name in ("_softmax", "_log_softmax"):
            x = f(4, 8, 2)
            forward = call(f"aten.{name}", x, dim, False)
            yield forward
            grad = g(4, 8, 2)
            yield call(f"aten.{name}_backward_data", grad, *forward.outputs, dim, torch.float32)
    for name in ("_softmax", "_log_softmax"):
        x = f(4, 8, dtype=torch.bfloat16)
        forward = call(f"aten.{name}", x, -1, False)
        yield forward
        grad = g(4, 8, dtype=torch.bfloat16)
        yield call(f"aten.{name}_backward_data", grad, *forward.outputs, -1, torch.bfloat16)


def _layer_norms() -> Iterator[Sample]:
    x, w, b = f(2, 4, 6), g(6), f(6)
    yield from _layer_norm(x, (6,), w, b)
    yield from _layer_norm(x, (6,), w, None)
    yield from _layer_norm(x, (6,), None, None)
    yield from _layer_norm(x, (4, 6), g(4, 6), f(4, 6))
    yield from _layer_norm(f(6), (6,), w, b)
    bf16 = torch.bfloat16
    yield from _layer_norm(x.to(bf16), (6,), w.to(bf16), b.to(bf16))


def _layer_norm(
    x: Tensor, shape: tuple[int, ...], weight: Tensor | None, bias: Tensor | None
) -> Iterator[Sample]:
    forward = call("aten.native_layer_norm", x, shape, weight, bias, 1e-5)
    yield forward
    _, mean, rstd = forward.outputs
    asked = [True, weight is not None, bias is not None]
    grad = g(*x.shape, dtype=x.dtype)
    name = "aten.native_layer_norm_backward"
    yield call(name, grad, x, shape, mean, rstd, weight, bias, asked)
    if bias is not None:
        yield call(name, grad, x, shape, mean, rstd, weight, bias, [False, True, False])


def _reductions() -> Iterator[Sample]:
    for dtype in FLOATS:
        for name in ("sum", "mean"):
            yield call(f"aten.{name}", f(4, 8, dtype=dtype))
    for name in ("sum.dim_IntList", "mean.dim", "amax", "amin"):
        yield call(f"aten.{name}", f(2, 4, 8), [-1])
        yield call(f"aten.{name}", f(2, 4, 8), [0, 2], True)
        yield call(f"aten.{name}", f(2, 4, 8), [])
        yield call(f"aten.{name}", f(1, 4), [0], True)
    yield call("aten.sum.dim_IntList", f(4, 8), None, dtype=torch.float64)
    yield call("aten.sum.dim_IntList", ids(4, 8, below=9), [1])
    yield call("aten.sum", mask(4, 8))
    yield call("aten.sum", f())
    yield call("aten.mean.dim", f(4, 8, dtype=torch.bfloat16), [1], True, dtype=torch.float32)
    for order in (2, 1, 3, float("inf")):
        yield call("aten.linalg_vector_norm", f(4, 8), order)
    yield call("aten.linalg_vector_norm", f(2, 4, 8), 2.0, [-1, 0], True)
    yield call("aten.linalg_vector_norm", f(4, 8, dtype=torch.bfloat16), dtype=torch.float32)
    yield call("aten.linalg_vector_norm", g(), 2.0)
    yield call("aten.cumsum", f(4, 8), -1)
    yield call("aten.cumsum", ids(4, 2, 6, below=3), 0)


def _lookups() -> Iterator[Sample]:
    table, at = f(8, 6), ids(2, 4, below=8)
    yield call("aten.embedding", table, at)
    yield call("aten.embedding", table.to(torch.bfloat16), at, 3)
    yield call("aten.embedding", table, ids(4, below=8))
    yield call("local.embedding", table, at, ())
    for grad in (f(2, 4, 6), f(2, 4, 6, dtype=torch.bfloat16)):
        yield call("aten.embedding_dense_backward", grad, at, 8, -1, False)
    yield call("aten.embedding_dense_backward", f(2, 4, 6), at, 8, int(at[0, 0]), False)
    yield call("aten.embedding_dense_backward", f(2, 4, 6), at, 8, -1, True)
    yield call("local.embedding_backward", f(2, 4, 6), at, 8, -1, ())
    yield call("local.pick", f(4, 6), ids(4, below=6), ())
    yield call("local.unpick", f(4), ids(4, below=6), 6, ())
    yield call("aten.index.Tensor", f(4, 8), [ids(2, 6, below=4)])
    yield call("aten.index.Tensor", f(4, 2, 8), [None, None, ids(6, below=8)])
    yield call("aten.index.Tensor", f(4, 2, 8), [ids(2, 1, below=4), ids(6, below=2)])
    yield call("aten.index.Tensor", f(4, 2, 8), [ids(2, below=4), None, ids(2, below=8)])
    yield call(
        "aten.index.Tensor", mask(4, 8), [ids(2, 1, 1, 1, below=4), ids(1, 1, 1, 6, below=8)]
    )
    yield call("aten.index.Tensor", f(4, 8), [mask(4)])


def _losses() -> Iterator[Sample]:
    x, targets = f(8, 6).log_softmax(1), ids(8, below=6)
    ignored = targets.clone()
    ignored[::3] = -100
    for reduction in (0, 1, 2):
        for weight in (None, g(6)):
            yield from _nll(x, ignored, weight, reduction, -100)
        yield from _nll(x, targets, None, reduction, int(targets[0]))
    yield from _nll(x.to(torch.bfloat16), targets, None, 1, -100)
    yield from _nll(x[0], targets[0], None, 1, -100)
    hidden = torch.full((8,), -100)
    grad, total = f(), torch.zeros(())
    yield call("aten.nll_loss_backward", grad, x, hidden, None, 1, -100, total)
    impossible = x.clone()
    impossible[:, 0] = -float("inf")
    yield from _nll(impossible, targets.masked_fill(targets == 0, 1), None, 1, -100)
    yield from _nll(impossible, targets, None, 2, 0)


def _nll(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore: int
) -> Iterator[Sample]:
    forward = call("aten.nll_loss_forward", x, target, weight, reduction, ignore)
    yield forward
    loss, total = forward.outputs
    grad = g(*loss.shape, dtype=loss.dtype)
    yield call("aten.nll_loss_backward", grad, x, target, weight, reduction, ignore, total)


def _views() -> Iterator[Sample]:
    for name in ("view", "_unsafe_view", "reshape"):
        yield call(f"aten.{name}", f(4, 8, 6), [4, 2, 4, 6])
        yield call(f"aten.{name}", f(4, 8, 6), [-1, 6])
        yield call(f"aten.{name}", f(6, 4), [4, 6])
        yield call(f"aten.{name}", f(2, 6, 4), [2, 4, 1, 6])
    yield call("aten.view", f(1, 8), [8, 1])
    yield call("aten.unsqueeze", f(4, 8), -1)
    yield call("aten.unsqueeze", f(4, 8), 1)
    yield call("aten.squeeze", f(2, 1, 4))
    yield call("aten.squeeze.dim", f(4, 1, 8), -2)
    yield call("aten.squeeze.dim", f(2, 4), 0)
    yield call("aten.squeeze.dims", f(2, 1, 4, 1), [1, 3, 0])
    yield call("aten.t", f(4, 8))
    yield call("aten.transpose.int", f(2, 4, 8), 1, -1)
    yield call("aten.permute", f(2, 4, 8), [2, 0, -2])
    yield call("aten.expand", f(4, 1, 8), [2, 4, 6, -1])
    yield call("aten.expand", f(1, 8), [4, 8])
    yield call("aten.detach", f(4, 8))
    yield call("aten.alias", ids(4, 8, below=3))


def _slices() -> Iterator[Sample]:
    yield call("aten.slice.Tensor", f(4, 8), 1, 2, 6)
    yield call("aten.slice.Tensor", f(4, 8), -1, 0, 8, 2)
    yield call("aten.slice.Tensor", f(4, 8), 0, 0, 9223372036854775807)
    yield call("aten.select.int", f(4, 8, 2), -2, 3)
    yield call("aten.select.int", f(4, 8), 0, -1)
    yield call("aten.unbind.int", f(4, 2, 8), 1)
    yield call("aten.unbind.int", f(2, 8))
    yield call("aten.split.Tensor", f(4, 8), 6, -1)
    yield call("aten.split_with_sizes", f(4, 8), [2, 6], 1)
    yield call("aten.slice_backward", f(4, 4), [4, 8], 1, 2, 6, 1)
    yield call("aten.slice_backward", f(4, 8), [4, 8], 0, 0, 9223372036854775807, 1)
    yield call("aten.select_backward", f(4, 2), [4, 8, 2], 1, 3)
    yield call("aten.slice_scatter", f(4, 8), g(4, 2), 1, 2, 4)
    yield call("aten.select_scatter", f(4, 8, 2), g(4, 2), -2, 3)


def _copies() -> Iterator[Sample]:
    yield call("aten.clone", f(4, 8))
    yield call("aten.clone", f(2, 4, 8).transpose(1, 2), memory_format="contiguous_format")
    yield call("aten.lift_fresh_copy", f(4, 8))
    yield call("aten.cat", [f(4, 2), g(4, 6)], -1)
    yield call("aten.cat", [ids(2, 4, below=3), ids(2, 4, below=9)])
    yield call("aten.cat", [f(0), f(4, 8)], -1)
    yield call("aten.stack", [f(4, 8), g(4, 8)], -1)
    yield call("aten.stack", [f(), g(), f()])
    yield call("aten.constant_pad_nd", f(2, 4, 8), [0, 1])
    yield call("aten.constant_pad_nd", f(4, 8), [0, 0, -1, 1], 2.0)
    yield call("aten.constant_pad_nd", ids(4, 8, below=9), [0, 2], -100)


def _factories() -> Iterator[Sample]:
    x = f(4, 8)
    yield call("aten.full", [4, 8], 2.5)
    yield call("aten.full", [4], Host(2.5), dtype=torch.float32)
    yield call("aten.full", [], -1)
    for name in ("zeros", "ones", "empty.memory_format"):
        yield call(f"aten.{name}", [4, 8], dtype=torch.bfloat16)
    for name in ("zeros", "ones", "empty"):
        yield call(f"aten.{name}_like", x)
        yield call(f"aten.{name}_like", x, dtype=torch.int64)
    yield call("aten.full_like", x, Host(2.5))
    for name, *more in (("zeros",), ("ones",), ("empty",), ("full", 3)):
        yield call(f"aten.new_{name}", x, [8, 2], *more)
        yield call(f"aten.new_{name}", x, [4, 8], *more)
    yield call("aten.new_empty_strided", x, [4, 8], [1, 4])
    yield call("aten.fill.Scalar", x, 1.5)
    yield call("aten.fill.Tensor", x, g())
    yield call("aten.scalar_tensor", Host(0.5), dtype=torch.float32)
    yield call("aten.arange", 8)
    yield call("aten.arange.start", 2, 8)
    yield call("aten.arange.start_step", 0, 8, 2)


_FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _binary,
    _unary,
    _optimizer,
    _selecting,
    _casts,
    _backward,
    _matmuls,
    _attention,
    _softmaxes,
    _layer_norms,
    _reductions,
    _lookups,
    _losses,
    _views,
    _slices,
    _copies,
    _factories,
)
