"""16-bit floats: constants of every kind, and sums that are rounded once."""

import math

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")


@triton.jit
def fill_kernel(out, VALUE: tl.constexpr):
    i = tl.arange(0, 8)
    tl.store(out + i, tl.full((8,), VALUE, out.dtype.element_ty))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 65504.0, 0.1, 2.0**-12])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_constants(value, dtype):
    out = torch.empty(8, dtype=dtype)
    fill_kernel[(1,)](out, value)
    expected = torch.full((8,), value).to(dtype)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@triton.jit
def _add(a, b):
    return a + b


@triton.jit
def fold_kernel(x, running, total, N: tl.constexpr):
    i = tl.arange(0, N)
    values = tl.load(x + i)
    tl.store(running + i, tl.associative_scan(values, 0, _add))
    tl.store(total, tl.reduce(values, 0, _add))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_rounded_once(dtype):
    x = torch.randn(1024).to(dtype)
    running, total = torch.empty_like(x), torch.empty(1, dtype=dtype)
    fold_kernel[(1,)](x, running, total, 1024)
    half_step = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(
        running.double(), x.double().cumsum(0), rtol=1.01 * half_step, atol=1e-4
    )
    torch.testing.assert_close(
        total.double(), x.double().sum(0, keepdim=True), rtol=1.01 * half_step, atol=1e-4
    )


@triton.jit
def _add_bits(a, b):
    return (a.to(tl.int16, bitcast=True) + b.to(tl.int16, bitcast=True)).to(
        tl.float16, bitcast=True
    )


@triton.jit
def bits_kernel(x, out, N: tl.constexpr):
    tl.store(out, tl.reduce(tl.load(x + tl.arange(0, N)), 0, _add_bits))


def test_a_fold_that_looks_at_bits_sees_16_of_them():
    x = torch.randint(0, 50, (64,), dtype=torch.int16)
    out = torch.empty(1, dtype=torch.float16)
    bits_kernel[(1,)](x.view(torch.float16), out, 64)
    assert out.view(torch.int16).item() == x.sum().item()
