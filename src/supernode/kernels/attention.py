"""Attention as a captured step names it, on chips that do not have torch's kernel for processors.

A step is captured for processors, where torch computes attention by one op with its log-sum-exp as
second result. Elsewhere that op has no kernel: on a GPU the same two results come from a fused
kernel for GPUs (`attention_on_cuda.py`) where one takes the operands, else from matmuls and a
softmax in float32, or in float64 if the operands are.

Shapes: B batch, H query heads, G key-value heads (H a multiple of G), S queries, T keys, E a head.
"""

import math

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.kernels.attention_on_cuda import fused, per_key_head, per_query_head

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The output [B, H, S, E] and the log-sum-exp [B, H, S] of the scores."""
    if q_BHSE.device.type == "cpu":
        return _FORWARD(
            q_BHSE, k_BGTE, v_BGTE, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )
    found = fused(q_BHSE, k_BGTE, v_BGTE, dropout_p, is_causal, attn_mask, scale)
    if found is not None:
        return found.forward()
    return composed(q_BHSE, k_BGTE, v_BGTE, dropout_p, is_causal, attn_mask, scale)


def attention_backward(
    grad_BHSE: Tensor,
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    out_BHSE: Tensor,
    logsumexp_BHS: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values."""
    args = (grad_BHSE, q_BHSE, k_BGTE, v_BGTE, out_BHSE, logsumexp_BHS, dropout_p, is_causal)
    if q_BHSE.device.type == "cpu":
        return _BACKWARD(*args, attn_mask=attn_mask, scale=scale)
    found = fused(q_BHSE, k_BGTE, v_BGTE, dropout_p, is_causal, attn_mask, scale)
    if found is not None:
        return found.backward(grad_BHSE, out_BHSE, logsumexp_BHS)
    return composed_backward(*args, attn_mask, scale)


def composed(
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """`attention` by matmuls and a softmax, on any device.

    Raises:
        InputError: with dropout, whose noise is the fused kernel's own.
    """
    if dropout_p:
        raise InputError("attention with dropout runs on processors only", fix="dropout_p=0.0")
    scores_BHST = _scores(q_BHSE, k_BGTE, is_causal, attn_mask, scale)
    logsumexp_BHS = scores_BHST.logsumexp(-1)
    weights_BHST = (scores_BHST - logsumexp_BHS.unsqueeze(-1)).exp()
    out_BHSE = weights_BHST @ per_query_head(_wide(v_BGTE), q_BHSE)
    return out_BHSE.to(q_BHSE.dtype), logsumexp_BHS


def composed_backward(
    grad_BHSE: Tensor,
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    out_BHSE: Tensor,
    logsumexp_BHS: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`attention_backward` by matmuls, on any device.

    **Source:** Dao et al., "FlashAttention", NeurIPS 2022, appendix B.2.
    """
    scores_BHST = _scores(q_BHSE, k_BGTE, is_causal, attn_mask, scale)
    weights_BHST = (scores_BHST - logsumexp_BHS.unsqueeze(-1)).exp()
    wide_BHSE = _wide(grad_BHSE)
    grad_v = weights_BHST.mT @ wide_BHSE
    grad_weights_BHST = wide_BHSE @ per_query_head(_wide(v_BGTE), q_BHSE).mT
    inner_BHS1 = (wide_BHSE * _wide(out_BHSE)).sum(-1, keepdim=True)
    grad_scores_BHST = weights_BHST * (grad_weights_BHST - inner_BHS1) * _factor(q_BHSE, scale)
    grad_q = grad_scores_BHST @ per_query_head(_wide(k_BGTE), q_BHSE)
    grad_k = grad_scores_BHST.mT @ _wide(q_BHSE)
    return (
        grad_q.to(q_BHSE.dtype),
        per_key_head(grad_k, k_BGTE).to(k_BGTE.dtype),
        per_key_head(grad_v, v_BGTE).to(v_BGTE.dtype),
    )


def _wide(x: Tensor) -> Tensor:
    """In the precision that scores are computed in."""
    return x if x.dtype == torch.float64 else x.float()


def _factor(q_BHSE: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q_BHSE.shape[-1]) if scale is None else scale


def _scores(
    q_BHSE: Tensor, k_BGTE: Tensor, is_causal: bool, attn_mask: Tensor | None, scale: float | None
) -> Tensor:
    keys_BHTE = per_query_head(_wide(k_BGTE), q_BHSE)
    scores_BHST = _wide(q_BHSE) @ keys_BHTE.mT * _factor(q_BHSE, scale)
    if is_causal:
        later = torch.ones(scores_BHST.shape[-2:], dtype=torch.bool, device=q_BHSE.device).triu(1)
        scores_BHST = scores_BHST.masked_fill(later, -math.inf)
    return scores_BHST if attn_mask is None else scores_BHST + attn_mask
