"""Partial results, made and combined; and when what they give is the same."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from numerics import assert_close
from ops.calls import Sample
from supernode.ops import Formula

NOISE = 8
"""How much longer a reduction counts when its terms are several times as large as the result."""

_LARGEST = 5
"""The largest integer that is added as noise."""


def combined(parts: Sequence[Tensor], kind: str, shares: Sequence[int] = (1, 1)) -> Tensor:
    """What parts of a kind stand for; a mean weighs them by their `shares` of the whole."""
    stacked = torch.stack(tuple(parts))
    if kind in ("max", "min"):
        return stacked.amax(0) if kind == "max" else stacked.amin(0)
    wide = stacked.double() if stacked.is_floating_point() else stacked
    if kind == "sum":
        result = wide.sum(0)
    elif kind == "mean":
        weights = torch.tensor(shares, dtype=wide.dtype) / sum(shares)
        result = torch.tensordot(weights, wide, 1)
    else:
        assert kind == "norm2", f"no parts of kind {kind!r}"
        result = wide.square().sum(0).sqrt()
    return result.to(stacked.dtype)


def beside(result: Tensor, parts: list[Tensor]) -> Tensor:
    """The result with its parts, relative to the parts: their size is that of the errors."""
    if not result.is_floating_point():
        return result
    wide = torch.stack(parts).double()
    size = wide.abs().sum(0) + wide.square().mean().sqrt()
    return torch.cat([result.double()[None], wide]) / size.where(size > 0, 1.0)


def has_parts(x: Any, kind: str) -> bool:
    """Whether `x` is a tensor that parts of a kind can stand for."""
    if not isinstance(x, Tensor) or x.dtype == torch.bool or not x.isfinite().all():
        return False
    if x.is_floating_point() or kind == "sum":
        return True
    return kind in ("max", "min") and not x.is_complex() and _has_room(x)


def _has_room(x: Tensor) -> bool:
    """Whether integers are far enough from the ends of their dtype for noise to be added."""
    ends = torch.iinfo(x.dtype)
    return bool(((x >= ends.min + _LARGEST) & (x <= ends.max - _LARGEST)).all())


def parts_of(x: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Two tensors that combine to `x`; the parts of a sum carry noise of both signs."""
    generator = torch.Generator().manual_seed(seed)
    if x.is_floating_point():
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        size = float(x.double().square().mean().sqrt()) if x.numel() else 0.0
        noise = noise.to(x.dtype) if kind == "norm2" else (noise * (size or 1.0)).to(x.dtype)
    else:
        noise = torch.randint(-_LARGEST, _LARGEST + 1, x.shape, generator=generator).to(x.dtype)
    if kind == "sum":
        return noise, x - noise
    if kind == "mean":
        return x + noise, x - noise
    if kind == "norm2":
        return x * noise.cos(), x * noise.sin()
    other = x - noise.abs() if kind == "max" else x + noise.abs()
    here = torch.rand(x.shape, generator=generator) < 0.5
    return torch.where(here, x, other), torch.where(here, other, x)


def terms(formula: Formula) -> int:
    """The number of terms behind an element of an output."""
    kept = [{factor for dim in dims for factor in dim} for dims in formula.outputs]
    gone = {f for dims in formula.inputs for dim in dims for f in dim} & set(formula.sizes)
    summed = [f for f in gone if f in formula.whole or not all(f in each for each in kept)]
    return math.prod(formula.sizes[factor] for factor in summed)


def compare(sample: Sample, got: Tensor, want: Tensor, length: int) -> None:
    """Within the tolerance of the coarsest dtype that takes part."""
    assert got.dtype == want.dtype, f"{got.dtype}, expected {want.dtype}"
    if "empty" in sample.op.name:
        assert got.shape == want.shape
        return
    tensors = [_real(x) for x in (*sample.inputs, *sample.outputs) if isinstance(x, Tensor)]
    got, want = _real(got), _real(want)
    dtypes = [x.dtype for x in tensors if x.is_floating_point()]
    if dtypes and want.is_floating_point():
        coarse = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
        got, want = got.to(coarse), want.to(coarse)
    assert_close(got, want, reduced=max(length, 1))


def _real(x: Tensor) -> Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
