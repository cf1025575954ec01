"""At least one sample call for every row of the op table; the proof of a row walks them.

Sizes are even, so that every factor can be split, and small, so that the proof takes seconds.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ops import (
    samples_index,
    samples_modules,
    samples_pointwise,
    samples_spectral,
    samples_vision,
)
from ops.calls import Host, Sample
from ops.calls import call as call
from ops.numbers import FLOATS, mask
from ops.numbers import f as f
from ops.numbers import g as g
from ops.numbers import ids as ids


@cache
def samples() -> dict[str, list[Sample]]:
    """The samples of each op by its name."""
    found: dict[str, list[Sample]] = {}
    for family in _FAMILIES:
        for sample in family():
            found.setdefault(sample.op.name, []).append(sample)
    return found


def _matmuls() -> Iterator[Sample]:
    for dtype in FLOATS:
        yield call("aten.mm", f(4, 8, dtype=dtype), g(8, 6, dtype=dtype))
        yield call("aten.bmm", f(2, 4, 8, dtype=dtype), g(2, 8, 6, dtype=dtype))
        yield call("aten.addmm", g(6, dtype=dtype), f(4, 8, dtype=dtype), g(8, 6, dtype=dtype))
        batch = g(2, 4, 8, dtype=dtype), f(2, 8, 6, dtype=dtype)
        yield call("aten.baddbmm", g(4, 6, dtype=dtype), *batch)
    for bias in (g(2, 4, 6), g(2, 1, 6), g(6), g(1, 1), g()):
        yield call("aten.baddbmm", bias, f(2, 4, 8), g(2, 8, 6))
    yield call("aten.baddbmm", g(2, 4, 6), f(2, 4, 8), g(2, 8, 6), beta=0.5, alpha=2)
    for dtype in FLOATS:
        yield call("aten.mv", f(4, 8, dtype=dtype), g(8, dtype=dtype))
        for name in ("dot", "vdot"):
            yield call(f"aten.{name}", f(8, dtype=dtype), g(8, dtype=dtype))
    for batch in ((), (2,)):
        for order in (2.0, 1.0):
            rows, others = f(*batch, 4, 8), g(*batch, 6, 8)
            forward = call("aten._cdist_forward", rows, others, order, None)
            yield forward
            (pairs,) = forward.outputs
            yield call("aten._cdist_backward", f(*pairs.shape), rows, others, order, pairs)
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


def _causal_pieces() -> Iterator[Sample]:
    """The whole as the only piece."""
    q, k, v = f(2, 4, 8, 4), g(2, 2, 8, 4), g(2, 2, 8, 4) - 1
    for kwargs in ({}, {"scale": 0.25}):
        forward = call("local.causal_attention", q, k, v, 0.0, (), **kwargs)
        yield forward
        out, lse = forward.outputs
        grad = f(*out.shape)
        yield call("local.causal_attention_backward", grad, q, k, v, out, lse, 0.0, (), **kwargs)


def _softmaxes() -> Iterator[Sample]:
    for dim in (-1, 0, 1):
        for name in ("_softmax", "_log_softmax"):
            x = f(4, 8, 2)
            forward = call(f"aten.{name}", x, dim, False)
            yield forward
            grad = g(4, 8, 2)
            yield call(f"aten.{name}_backward_data", grad, *forward.outputs, dim, torch.float32)
    hidden = f(4, 8).masked_fill(torch.arange(4)[:, None] == 1, -float("inf"))
    yield call("aten._safe_softmax", hidden, -1)
    yield call("aten._safe_softmax", f(4, 8, 2), 1)
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
    for name in ("max", "min"):
        yield call(f"aten.{name}", f(4, 8))
        yield call(f"aten.{name}.dim", f(2, 4, 8), 1)
        yield call(f"aten.{name}.dim", f(4, 8), -1, True)
        yield call(f"aten.arg{name}", f(4, 8), 1, True)
        yield call(f"aten.arg{name}", f(4, 8))


def _whole_reductions() -> Iterator[Sample]:
    for name in ("any", "all"):
        yield call(f"aten._is_{name}_true", f(4, 6) > 0)
        yield call(f"aten.{name}", mask(4, 8))
        yield call(f"aten.{name}.dim", mask(2, 4, 8), 1)
        yield call(f"aten.{name}.dims", mask(2, 4, 8), [0, 2], True)
    yield call("aten.prod", g(4, 8))
    yield call("aten.prod.dim_int", g(4, 8), 1, True)
    for name in ("var", "std", "var_mean"):
        yield call(f"aten.{name}.correction", f(2, 4, 8), [-1], correction=0)
        yield call(f"aten.{name}.correction", f(2, 4, 8), [0, 2], keepdim=True)
    yield call("aten.var.correction", f(4, 8))
    yield call("aten.logsumexp", f(4, 8), [1])
    yield call("aten.logsumexp", 100 * f(2, 4, 8), [0, 2], True)


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
    yield call("aten.slice.Tensor", f(12, 2), 0, 4, 12)
    yield call("aten.slice.Tensor", f(12, 2), 0, 4, 9223372036854775807)
    yield call("aten.slice.Tensor", f(12, 2), 0, 0, 4)
    yield call("aten.slice.Tensor", f(12, 2), 0, -8, 12)
    yield call("aten.slice.Tensor", f(4, 8), 1, 2, 6)
    yield call("aten.slice.Tensor", f(4, 8), -1, 0, 8, 2)
    yield call("aten.slice.Tensor", f(4, 8), 1, 1, 9223372036854775807, 2)
    yield call("aten.slice.Tensor", f(4, 8), 1, 1, 7, 2)
    yield call("aten.slice.Tensor", f(4, 9), 1, 1, 9223372036854775807, 2)
    yield call("aten.slice.Tensor", f(4, 8), 0, 0, 9223372036854775807)
    yield call("aten.select.int", f(4, 8, 2), -2, 3)
    yield call("aten.select.int", f(4, 8), 0, -1)
    yield call("aten.unbind.int", f(4, 2, 8), 1)
    yield call("aten.unbind.int", f(2, 8))
    yield call("aten.split.Tensor", f(2, 24), 10, -1)
    yield call("aten.split.Tensor", f(2, 12), 4, -1)
    yield call("aten.split_with_sizes", f(2, 12), [4, 8], 1)
    yield call("aten.split_with_sizes", f(4, 8), [2, 6], 1)
    yield call("aten.unsafe_split.Tensor", f(2, 12), 4, -1)
    yield call("aten.unsafe_split_with_sizes", f(2, 12), [4, 8], 1)
    yield call("aten.slice_backward", f(2, 8), [2, 12], 1, 4, 12, 1)
    yield call("aten.slice_backward", f(2, 4), [2, 12], 1, 0, 4, 1)
    yield call("aten.slice_backward", f(2, 6), [2, 12], 1, 1, 9223372036854775807, 2)
    yield call("local.slice_backward", f(2, 6), 12, 1, 1, 12, 2)
    yield call("local.slice_backward", f(2, 8), 12, 1, 4, 12, 1)
    yield call("aten.slice_backward", f(4, 4), [4, 8], 1, 2, 6, 1)
    yield call("aten.slice_backward", f(4, 8), [4, 8], 0, 0, 9223372036854775807, 1)
    yield call("aten.select_backward", f(4, 2), [4, 8, 2], 1, 3)
    yield call("aten.slice_scatter", f(4, 8), g(4, 2), 1, 2, 4)
    yield call("aten.select_scatter", f(4, 8, 2), g(4, 2), -2, 3)


def _copies() -> Iterator[Sample]:
    yield call("aten.clone", f(4, 8))
    yield call("aten.clone", f(2, 4, 8).transpose(1, 2), memory_format="contiguous_format")
    yield call("aten.lift_fresh_copy", f(4, 8))
    yield call("aten.cat", [f(2, 4), g(2, 8)], -1)
    yield call("aten.cat", [f(4, 2), g(4, 6)], -1)
    yield call("aten.cat", [ids(2, 4, below=3), ids(2, 4, below=9)])
    yield call("aten.cat", [f(0), f(4, 8)], -1)
    yield call("aten.repeat", f(4, 8), [2, 1])
    yield call("aten.repeat", f(1, 4), [2, 4, 2])
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
    yield call("aten.linspace", 0, 1, 8)
    yield call("aten.eye", 8)
    yield call("aten.tril_indices", 4, 4, -1)
    yield call("aten.triu_indices", 4, 4)
    yield call("aten.eye.m", 4, 6)
    yield call("aten.arange", 8)
    yield call("aten.arange.start", 2, 8)
    yield call("aten.arange.start_step", 0, 8, 2)


_FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    *samples_pointwise.FAMILIES,
    _matmuls,
    _attention,
    _causal_pieces,
    _softmaxes,
    _layer_norms,
    _reductions,
    _whole_reductions,
    *samples_index.FAMILIES,
    *samples_spectral.FAMILIES,
    *samples_vision.FAMILIES,
    *samples_modules.FAMILIES,
    _views,
    _slices,
    _copies,
    _factories,
)
