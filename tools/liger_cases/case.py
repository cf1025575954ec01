"""What a case is, sizes that cases share, and the ops that can't be cases."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

ROWS, WIDTH, VOCABULARY = 37, 96, 300
MATRIX, VECTOR = (ROWS, WIDTH), (WIDTH,)
LOGITS = (ROWS, VOCABULARY)
SINGLE = (torch.float32,)


@dataclass(frozen=True, slots=True)
class Case:
    """An op of Liger: where it is, the shapes of its tensors, how it and torch are called.

    `ours` gets the op (its `apply`, if it is an autograd Function) and the tensors, `plain` the
    tensors in double precision. `told` replaces names in the op's module: what it asks the machine.
    """

    where: str
    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    told: dict[str, Any] = field(default_factory=dict[str, Any])


def rms(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Each row divided by the root of its mean square."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


LEFT_OUT = {
    "fused_linear_scaled_cross_entropy": "no Triton: CUTLASS on Hopper, plain torch elsewhere",
    "fused_linear_scaled_cross_entropy (tensor parallel)": "the same, over NVSHMEM",
    "cute, cutedsl, cutile": "not Triton: NVIDIA's CuTe and cuTile",
    "backends": "picks kernels of the same ops for Ascend's NPUs, or those of CuTe and cuTile",
}
"""What else is in `liger_kernel.ops`, and why it is no case."""
