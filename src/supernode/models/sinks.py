"""Attention with sinks and windows: what gpt-oss has in place of plain causal attention.

A sink is a learned score of each head that takes its share of the softmax and gives nothing. A
window lets a token attend to so many tokens up to its own, and no others.

Names of tensors end in their dims: B batch, H query heads, G key-value heads, T the tokens of this
step, S keys, K one head, W a window.

**Source:** Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023, section
3.2; OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2.2.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Sunk(torch.autograd.Function):
    """Plain attention by torch's kernel, scaled down by what the sinks take.

    With `sink` among the scores the weights sum to less than 1: the log-sum-exp is that of all
    scores, with it the kernel's own backward pass gives the gradients of queries, keys and values.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTK: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        sinks_H: Tensor,
        mask_TS: Tensor | None,
    ) -> Tensor:
        causal = mask_TS is None
        plain_BHTK, known_BHT = _FORWARD(q_BHTK, k_BGSK, v_BGSK, 0.0, causal, attn_mask=mask_TS)
        total_BHT = torch.logaddexp(known_BHT, sinks_H.float()[:, None])
        share_BHT = (known_BHT - total_BHT).exp()
        y_BHTK = plain_BHTK * share_BHT[..., None].to(plain_BHTK.dtype)
        ctx.save_for_backward(q_BHTK, k_BGSK, v_BGSK, sinks_H, mask_TS, y_BHTK, total_BHT)
        return y_BHTK

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, sinks_H, mask, y_BHTK, total_BHT = ctx.saved_tensors
        (grad_BHTK,) = grads
        causal = mask is None
        of_q, of_k, of_v = _BACKWARD(
            grad_BHTK, q, k, v, y_BHTK, total_BHT, 0.0, causal, attn_mask=mask
        )
        inner_BHT = (grad_BHTK.float() * y_BHTK.float()).sum(-1)
        taken_BHT = (sinks_H.float()[:, None] - total_BHT).exp()
        of_sinks_H = -(taken_BHT * inner_BHT).sum((0, 2))
        return of_q, of_k, of_v, of_sinks_H.to(sinks_H.dtype), None


def sunk(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, sinks_H: Tensor, mask_TS: Tensor | None = None
) -> Tensor:
    """Attention `[B, H, T, K]` with a sink in each head; causal where there is no `mask_TS`, which
    is added to the scores; H is a multiple of G."""
    out: Any = _Sunk.apply(q_BHTK, k_BGSK, v_BGSK, sinks_H, mask_TS)
    return out


def windowed(
    q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, sinks_H: Tensor, window: int
) -> Tensor:
    """As `sunk`, but each token attends to the `window` tokens up to its own.

    Tokens go in stretches of a window, each beside the one before it, so that cost follows T W and
    not T T; the first stretch has none before it.
    """
    tokens = q_BHTK.shape[2]
    if tokens <= window:
        return sunk(q_BHTK, k_BGTK, v_BGTK, sinks_H)
    batch, missing = q_BHTK.shape[0], -tokens % window
    q, k, v = (F.pad(x, (0, 0, 0, missing)) for x in (q_BHTK, k_BGTK, v_BGTK))
    first_BHWK = sunk(q[:, :, :window], k[:, :, :window], v[:, :, :window], sinks_H)
    at = torch.arange(window, device=q.device)
    back = at[:, None] + window - torch.arange(2 * window, device=q.device)
    mask_TS = _added((back >= 0) & (back < window), q.dtype)
    rest = sunk(
        _stretches(q[:, :, window:], window), _pairs(k, window), _pairs(v, window), sinks_H, mask_TS
    ).unflatten(0, (batch, -1))
    rest_BHTK = rest.transpose(1, 2).flatten(2, 3)
    return torch.cat([first_BHWK, rest_BHTK], dim=2)[:, :, :tokens]


def _pairs(x: Tensor, window: int) -> Tensor:
    """Each stretch but the first behind the one before it: `[B N, G, 2 W, K]`."""
    before, here = x[:, :, :-window], x[:, :, window:]
    return torch.cat([_stretches(before, window), _stretches(here, window)], dim=2)


def _stretches(x: Tensor, window: int) -> Tensor:
    """`[B, H, N W, K]` as `[B N, H, W, K]`."""
    return x.unflatten(2, (-1, window)).transpose(1, 2).flatten(0, 1)


def looking_back(positions_T: Tensor, places: int, window: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores `[T, S]` of a cache of so many places, in which that of position
    p is p modulo `places`: 0 where a token may look, minus infinity elsewhere. `window` 0: at all
    up to its own."""
    last, places_S = positions_T[-1], torch.arange(places, device=positions_T.device)
    held_S = last - (last - places_S) % places
    back_TS = positions_T[:, None] - held_S[None, :]
    seen_TS = (back_TS >= 0) & (held_S >= 0)
    return _added(seen_TS & (back_TS < window) if window else seen_TS, dtype)


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    none = torch.zeros((), dtype=dtype, device=seen.device)
    return torch.where(seen, none, float("-inf"))
