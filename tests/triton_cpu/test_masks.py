"""Masks that end along a tile: loops run without them up to there, and with them from there on."""

import re

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")

ROWS, COLUMNS = 5, 512


@triton.jit
def masked(x, out, sums, start, n, low, M: tl.constexpr, N: tl.constexpr, KIND: tl.constexpr):
    i, j = tl.arange(0, 8)[:, None], (start.to(KIND) + tl.arange(0, N))[None, :]
    at = i * N + tl.arange(0, N)[None, :]
    before = tl.load(x + at, mask=(i < M) & (j < n), other=-1.0)
    until = tl.load(x + at, mask=(n >= j) & (i < M), other=-2.0)
    between = tl.load(x + at, mask=(j >= low) & (j < n) & (i < M), other=-3.0)
    behind = tl.load(x + at, mask=(n < j) & (i < M), other=-4.0)
    mixed = tl.where((j < low) | (i == 2), before, until)
    total = before + 10 * until + 100 * between + 1000 * behind + 10000 * mixed
    tl.store(out + at, total, mask=(j < n + 3) & (i < M))
    tl.store(sums + tl.arange(0, 8), tl.sum(tl.where(j <= n, before, 0.0), 1))


def expected(x, start, n, low):
    i, j = torch.arange(ROWS)[:, None], start + torch.arange(COLUMNS)[None]
    before = torch.where(j < n, x, -1.0)
    until = torch.where(j <= n, x, -2.0)
    between = torch.where((j >= low) & (j < n), x, -3.0)
    behind = torch.where(j > n, x, -4.0)
    mixed = torch.where((j < low) | (i == 2), before, until)
    total = before + 10 * until + 100 * between + 1000 * behind + 10000 * mixed
    return torch.where(j < n + 3, total, 0.0), torch.where(j <= n, before, 0.0).sum(1)


@pytest.mark.parametrize("start", [0, -7, 2**31 - 600])
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_masks_of_every_length(start, kind):
    x = torch.randint(-9, 9, (ROWS, COLUMNS)).float()
    # Ends in the first, a middle and the last chunk of lanes, at their edges, and outside.
    for length in (-5, 0, 1, 63, 64, 65, 200, 511, 512, 513):
        n, low = start + length, start + length // 3
        out, sums = torch.zeros(ROWS, COLUMNS), torch.empty(8)
        masked[(1,)](x, out, sums, start, n, low, ROWS, COLUMNS, getattr(tl, kind))
        want, want_sums = expected(x, start, n, low)
        assert torch.equal(out, want), length
        assert torch.equal(sums[:ROWS], want_sums), length


@triton.jit
def copy(x, out, n, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i, mask=i < n), mask=i < n)


def test_the_main_part_loads_and_stores_without_a_mask():
    x, out = torch.randn(1000), torch.zeros(1000)
    kernel = copy[(1,)](x, out, 900, 1024)
    assert torch.equal(out[:900], x[:900])
    assert not out[900:].any()
    for plain in (r"= load <\d+ x float>, ptr", r"  store <\d+ x float> "):
        assert re.search(plain, kernel.asm["llir"])
