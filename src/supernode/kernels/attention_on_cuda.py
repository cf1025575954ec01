"""Fused attention on NVIDIA GPUs, with the results of torch's kernel for processors.

torch has three kernels that give a log-sum-exp: cuDNN's and FlashAttention-2, for 16 bits, and the
memory-efficient one of xFormers. `fused` finds one that takes the operands, in the order in which
torch's own `scaled_dot_product_attention` chooses; that one also knows which GPUs cuDNN is for.

Shapes: B batch, H query heads, G key-value heads (H a multiple of G), S queries, T keys, E a head.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_HALVES = (torch.float16, torch.bfloat16)
_VECTOR_BYTES = 16
"""What the kernels load at a time: a row of a head must be a multiple of it."""
_FLASH_WIDTH = 256
"""The widest head of FlashAttention-2."""
_ROWS, _COLUMNS = 32, 16
"""The memory-efficient kernel wants its log-sum-exp, and a row of a mask, in multiples of these."""

_CUDNN = 3
"""What torch calls cuDNN's kernel where it chooses: `torch.nn.attention.SDPBackend`."""

Grads = tuple[Tensor, Tensor, Tensor]
_cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention
_cudnn_backward = torch.ops.aten._scaled_dot_product_cudnn_attention_backward
_flash = torch.ops.aten._scaled_dot_product_flash_attention
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_backward
_efficient = torch.ops.aten._scaled_dot_product_efficient_attention
_efficient_backward = torch.ops.aten._scaled_dot_product_efficient_attention_backward


class FusedKernel(Protocol):
    """Both ways of one kernel; arguments as in `kernels/attention.py`, without dropout."""

    def forward(
        self,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> tuple[Tensor, Tensor]:
        """The output [B, H, S, E] and the log-sum-exp [B, H, S]."""
        ...

    def backward(
        self,
        grad_BHSE: Tensor,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        out_BHSE: Tensor,
        logsumexp_BHS: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> Grads:
        """The gradients of queries, keys and values."""
        ...


def fused(
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    dropout_p: float,
    is_causal: bool,
    mask: Tensor | None,
) -> FusedKernel | None:
    """The kernel that takes these operands, if there is one; the same for both ways."""
    width, dtype = q_BHSE.shape[-1], q_BHSE.dtype
    if q_BHSE.device.type != "cuda" or dropout_p or v_BGTE.shape[-1] != width:
        return None
    if width * dtype.itemsize % _VECTOR_BYTES or 0 in (q_BHSE.numel(), k_BGTE.numel()):
        return None
    square = q_BHSE.shape[2] == k_BGTE.shape[2]
    if dtype in _HALVES and mask is None and width <= _FLASH_WIDTH and (square or not is_causal):
        shared = q_BHSE.shape[1] != k_BGTE.shape[1]
        chosen = torch.ops.aten._fused_sdp_choice(
            q_BHSE, k_BGTE, v_BGTE, is_causal=is_causal, enable_gqa=shared
        )
        return _Cudnn() if chosen == _CUDNN else _Flash()
    if dtype in (*_HALVES, torch.float32) and not (is_causal and mask is not None):
        return _Efficient()
    return None


class _Cudnn:
    """cuDNN's, which torch prefers on GPUs of its kind: on an H200 its backward takes half of the
    time of FlashAttention-2 (2026-11-27, `bench/reports`)."""

    def forward(
        self,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> tuple[Tensor, Tensor]:
        found = _cudnn(q_BHSE, k_BGTE, v_BGTE, None, True, 0.0, is_causal, False, scale=scale)
        return found[0], found[1].squeeze(-1)

    def backward(
        self,
        grad_BHSE: Tensor,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        out_BHSE: Tensor,
        logsumexp_BHS: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> Grads:
        operands = (grad_BHSE, q_BHSE, k_BGTE, v_BGTE, out_BHSE, logsumexp_BHS.unsqueeze(-1))
        unused = q_BHSE.new_empty((), dtype=torch.int64)  # the state of dropout
        lengths = (None, None, q_BHSE.shape[2], k_BGTE.shape[2])
        return _cudnn_backward(
            *operands, unused, unused, None, *lengths, 0.0, is_causal, scale=scale
        )


class _Flash:
    """FlashAttention-2, which knows query heads that share keys.

    **Source:** Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work
    Partitioning", ICLR 2024.
    """

    def forward(
        self,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> tuple[Tensor, Tensor]:
        found = _flash(q_BHSE, k_BGTE, v_BGTE, 0.0, is_causal, False, scale=scale)
        return found[0], found[1]

    def backward(
        self,
        grad_BHSE: Tensor,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        out_BHSE: Tensor,
        logsumexp_BHS: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> Grads:
        operands = (grad_BHSE, q_BHSE, k_BGTE, v_BGTE, out_BHSE, logsumexp_BHS)
        lengths = (None, None, q_BHSE.shape[2], k_BGTE.shape[2])
        unused = q_BHSE.new_empty(0, dtype=torch.int64)  # the state of dropout
        return _flash_backward(*operands, *lengths, 0.0, is_causal, unused, unused, scale=scale)


class _Efficient:
    """The memory-efficient kernel, which wants keys for every query head.

    **Source:** Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", 2021.
    """

    def forward(
        self,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> tuple[Tensor, Tensor]:
        k_BHTE, v_BHTE = (_per_query_head(x, q_BHSE) for x in (k_BGTE, v_BGTE))
        bias = _bias(mask, q_BHSE, k_BHTE)
        out_BHSE, logsumexp, _, _ = _efficient(
            q_BHSE, k_BHTE, v_BHTE, bias, True, 0.0, is_causal, scale=scale
        )
        return out_BHSE, logsumexp[..., : q_BHSE.shape[2]].contiguous()

    def backward(
        self,
        grad_BHSE: Tensor,
        q_BHSE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        out_BHSE: Tensor,
        logsumexp_BHS: Tensor,
        is_causal: bool,
        mask: Tensor | None,
        scale: float | None,
    ) -> Grads:
        k_BHTE, v_BHTE = (_per_query_head(x, q_BHSE) for x in (k_BGTE, v_BGTE))
        bias = _bias(mask, q_BHSE, k_BHTE)
        padded = F.pad(logsumexp_BHS, (0, -logsumexp_BHS.shape[-1] % _ROWS))
        unused = q_BHSE.new_empty(0, dtype=torch.int64)
        operands = (grad_BHSE, q_BHSE, k_BHTE, v_BHTE, bias, out_BHSE, padded, unused, unused)
        wanted = [True, True, True, False]
        of_q, of_k, of_v, _ = _efficient_backward(*operands, 0.0, wanted, is_causal, scale=scale)
        return of_q, _per_key_head(of_k, k_BGTE), _per_key_head(of_v, v_BGTE)


def _per_query_head(x_BGTE: Tensor, q_BHSE: Tensor) -> Tensor:
    each = q_BHSE.shape[1] // x_BGTE.shape[1]
    return x_BGTE if each == 1 else x_BGTE.repeat_interleave(each, dim=1)


def _per_key_head(grad_BHTE: Tensor, like_BGTE: Tensor) -> Tensor:
    if grad_BHTE.shape == like_BGTE.shape:
        return grad_BHTE
    return grad_BHTE.unflatten(1, (like_BGTE.shape[1], -1)).sum(2)


def _bias(mask: Tensor | None, q_BHSE: Tensor, k_BHTE: Tensor) -> Tensor | None:
    """The mask for each query and key, its rows aligned."""
    if mask is None:
        return None
    keys = k_BHTE.shape[2]
    padded = F.pad(mask.to(q_BHSE.dtype), (0, -mask.shape[-1] % _COLUMNS))[..., :keys]
    return padded.expand(*q_BHSE.shape[:3], keys)
