"""Fused attention on NVIDIA GPUs, with the results of torch's kernel for processors.

torch has three kernels that give a log-sum-exp: cuDNN's and FlashAttention-2, for 16 bits, and the
memory-efficient one of xFormers. `fused` finds one that takes the operands, in the order in which
torch's own `scaled_dot_product_attention` chooses; that one also knows which GPUs cuDNN is for.

Shapes: B batch, H query heads, G key-value heads (H a multiple of G), S queries, T keys, E a head.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused(ABC):
    """One kernel with its operands, as in `kernels/attention.py` without dropout; both ways."""

    q_BHSE: Tensor
    k_BGTE: Tensor
    v_BGTE: Tensor
    is_causal: bool
    mask: Tensor | None
    scale: float | None

    @abstractmethod
    def forward(self) -> tuple[Tensor, Tensor]:
        """The output [B, H, S, E] and the log-sum-exp [B, H, S]."""

    @abstractmethod
    def backward(self, grad_BHSE: Tensor, out_BHSE: Tensor, logsumexp_BHS: Tensor) -> Grads:
        """The gradients of queries, keys and values."""

    @property
    def _operands(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_BHSE, self.k_BGTE, self.v_BGTE

    @property
    def _lengths(self) -> tuple[None, None, int, int]:
        """Where sequences begin, which is for those packed in one, and the longest of each side."""
        return None, None, self.q_BHSE.shape[2], self.k_BGTE.shape[2]


def fused(
    q_BHSE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    dropout_p: float,
    is_causal: bool,
    mask: Tensor | None,
    scale: float | None,
) -> Fused | None:
    """The kernel that takes these operands, if there is one; the same for both ways."""
    width, dtype = q_BHSE.shape[-1], q_BHSE.dtype
    if q_BHSE.device.type != "cuda" or dropout_p or v_BGTE.shape[-1] != width:
        return None
    if width * dtype.itemsize % _VECTOR_BYTES or 0 in (q_BHSE.numel(), k_BGTE.numel()):
        return None
    kind = None
    square = q_BHSE.shape[2] == k_BGTE.shape[2]
    if dtype in _HALVES and mask is None and width <= _FLASH_WIDTH and (square or not is_causal):
        shared = q_BHSE.shape[1] != k_BGTE.shape[1]
        chosen = torch.ops.aten._fused_sdp_choice(
            q_BHSE, k_BGTE, v_BGTE, is_causal=is_causal, enable_gqa=shared
        )
        kind = Cudnn if chosen == _CUDNN else Flash
    elif dtype in (*_HALVES, torch.float32) and not (is_causal and mask is not None):
        kind = Efficient
    if kind is None:
        return None
    return kind(
        q_BHSE=q_BHSE, k_BGTE=k_BGTE, v_BGTE=v_BGTE, is_causal=is_causal, mask=mask, scale=scale
    )


class Cudnn(Fused):
    """cuDNN's, which torch prefers on GPUs of its kind: on an H200 its backward takes half of the
    time of FlashAttention-2 (2026-11-27, `bench/reports`)."""

    def forward(self) -> tuple[Tensor, Tensor]:
        found = _cudnn(*self._operands, None, True, 0.0, self.is_causal, False, scale=self.scale)
        return found[0], found[1].squeeze(-1)

    def backward(self, grad_BHSE: Tensor, out_BHSE: Tensor, logsumexp_BHS: Tensor) -> Grads:
        given = (grad_BHSE, *self._operands, out_BHSE, logsumexp_BHS.unsqueeze(-1))
        unused = self.q_BHSE.new_empty((), dtype=torch.int64)  # the state of dropout
        rest = (unused, unused, None, *self._lengths, 0.0, self.is_causal)
        return _cudnn_backward(*given, *rest, scale=self.scale)


class Flash(Fused):
    """FlashAttention-2, which knows query heads that share keys.

    **Source:** Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work
    Partitioning", ICLR 2024.
    """

    def forward(self) -> tuple[Tensor, Tensor]:
        found = _flash(*self._operands, 0.0, self.is_causal, False, scale=self.scale)
        return found[0], found[1]

    def backward(self, grad_BHSE: Tensor, out_BHSE: Tensor, logsumexp_BHS: Tensor) -> Grads:
        given = (grad_BHSE, *self._operands, out_BHSE, logsumexp_BHS)
        unused = self.q_BHSE.new_empty(0, dtype=torch.int64)  # the state of dropout
        rest = (*self._lengths, 0.0, self.is_causal, unused, unused)
        return _flash_backward(*given, *rest, scale=self.scale)


class Efficient(Fused):
    """The memory-efficient kernel, which wants keys for every query head.

    **Source:** Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", 2021.
    """

    def forward(self) -> tuple[Tensor, Tensor]:
        out_BHSE, logsumexp, _, _ = _efficient(
            *self._per_head, self._bias, True, 0.0, self.is_causal, scale=self.scale
        )
        return out_BHSE, logsumexp[..., : self.q_BHSE.shape[2]].contiguous()

    def backward(self, grad_BHSE: Tensor, out_BHSE: Tensor, logsumexp_BHS: Tensor) -> Grads:
        padded = F.pad(logsumexp_BHS, (0, -logsumexp_BHS.shape[-1] % _ROWS))
        unused = self.q_BHSE.new_empty(0, dtype=torch.int64)
        given = (grad_BHSE, *self._per_head, self._bias, out_BHSE, padded, unused, unused)
        rest = (0.0, [True, True, True, False], self.is_causal)
        of_q, of_k, of_v, _ = _efficient_backward(*given, *rest, scale=self.scale)
        return of_q, per_key_head(of_k, self.k_BGTE), per_key_head(of_v, self.v_BGTE)

    @property
    def _per_head(self) -> tuple[Tensor, Tensor, Tensor]:
        """The operands with keys and values for each query head."""
        q_BHSE, k_BGTE, v_BGTE = self._operands
        return q_BHSE, per_query_head(k_BGTE, q_BHSE), per_query_head(v_BGTE, q_BHSE)

    @property
    def _bias(self) -> Tensor | None:
        """The mask for each query and key, its rows aligned."""
        if self.mask is None:
            return None
        keys = self.k_BGTE.shape[2]
        wide = self.mask.to(self.q_BHSE.dtype)
        padded = F.pad(wide, (0, -wide.shape[-1] % _COLUMNS))[..., :keys]
        return padded.expand(*self.q_BHSE.shape[:3], keys)


def per_query_head(x_BGTE: Tensor, q_BHSE: Tensor) -> Tensor:
    """Keys or values for each query head, [B, H, T, E]."""
    each = q_BHSE.shape[1] // x_BGTE.shape[1]
    return x_BGTE if each == 1 else x_BGTE.repeat_interleave(each, dim=1)


def per_key_head(grad_BHTE: Tensor, like_BGTE: Tensor) -> Tensor:
    """The reverse: the gradient of what query heads share, [B, G, T, E]."""
    if grad_BHTE.shape == like_BGTE.shape:
        return grad_BHTE
    return grad_BHTE.unflatten(1, (like_BGTE.shape[1], -1)).sum(2)
