"""What torch itself counts as FLOP, on a CPU."""

from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    bmm_flop,
    mm_flop,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Shape = tuple[int, ...]


def counter() -> FlopCounterMode:
    """Torch's counter; it has no entry for some ops, so it is given its own formulas.

    Those ask for as many key heads as query heads, so keys and values count as if repeated.
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
            aten._grouped_mm: _grouped,
        },
    )


def _forward(q: Shape, k: Shape, v: Shape, *rest: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, _repeated(k, q), _repeated(v, q))


def _backward(grad: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, q, _repeated(k, q), _repeated(v, q))


def _grouped(a: Shape, b: Shape, *rest: Any, out_shape: Shape, **kwargs: Any) -> int:
    """Every token meets one expert, so groups don't count, but where each has tokens of its own."""
    if len(a) == 3 == len(b):
        return bmm_flop(a, b)
    return mm_flop(a[-2:], b[-2:])


def _repeated(k: Shape, q: Shape) -> Shape:
    return (k[0], q[1], *k[2:])
