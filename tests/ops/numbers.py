"""What samples are made of: tensors that are the same for the same shape."""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)


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
