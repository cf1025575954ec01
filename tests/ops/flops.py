"""What torch itself counts as FLOP, on a CPU."""

from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Shape = tuple[int, ...]


def counter() -> FlopCounterMode:
    """Torch's counter; it has no entry for the CPU's attention, so it is given its own formulas.

    Those ask for as many key heads as query heads, so keys and values count as if repeated.
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
        },
    )


def _forward(q: Shape, k: Shape, v: Shape, *rest: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, _repeated(k, q), _repeated(v, q))


def _backward(grad: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, q, _repeated(k, q), _repeated(v, q))


def _repeated(k: Shape, q: Shape) -> Shape:
    return (k[0], q[1], *k[2:])
