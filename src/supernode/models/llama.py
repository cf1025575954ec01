"""Llama: a decoder-only transformer with RMSNorm, rotary positions, grouped queries and SwiGLU.

Names of tensors end in their dims: B batch, T tokens, D model, H query heads, G key-value heads,
K one head, C half a head, F feed-forward, V vocabulary.

**Source:** Dubey et al., "The Llama 3 Herd of Models", 2024, section 3.2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.language import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama; `n_heads` is a multiple of `n_kv_heads`, `d_model` of `n_heads`."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_feed_forward: int
    vocab: int
    context: int
    rope_theta: float = 500_000.0
    norm_epsilon: float = 1e-5
    init_std: float = 0.02

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


class Llama(LanguageModel):
    """The model of `config`, freshly initialised from torch's global generator."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        self.vocab = config.vocab
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.lm_head = nn.Linear(config.d_model, config.vocab, bias=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=config.init_std)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        rotation = rotary_table(tokens_BT.shape[1], self.config, like=x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD, *rotation)
        return self.lm_head(self.norm(x_BTD))


def rotary_table(length: int, config: LlamaConfig, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine `[T, C]` of the rotary angles, with the device and dtype of `like`.

    **Source:** Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
    equation 15: pair c of a head turns by `position * theta ** (-2c / K)`.
    """
    pairs_C = torch.arange(0, config.d_head, 2, device=like.device, dtype=torch.float32)
    frequencies_C = config.rope_theta ** (-pairs_C / config.d_head)
    positions_T = torch.arange(length, device=like.device, dtype=torch.float32)
    angles_TC = positions_T[:, None] * frequencies_C[None, :]
    return angles_TC.cos().to(like.dtype), angles_TC.sin().to(like.dtype)


def rotate(x_BHTK: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """`x_BHTK` with each pair (c, c + K/2) of its last dim turned by the angle of its position."""
    a_BHTC, b_BHTC = x_BHTK.chunk(2, dim=-1)
    turned = (a_BHTC * cos_TC - b_BHTC * sin_TC, b_BHTC * cos_TC + a_BHTC * sin_TC)
    return torch.cat(turned, dim=-1)


class RMSNorm(nn.Module):
    """Each token divided by its root mean square, computed in float32, times a learned gain.

    **Source:** Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        wide_BTD = x_BTD.float()
        scale_BT1 = (wide_BTD.pow(2).mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return (wide_BTD * scale_BT1).to(x_BTD.dtype) * self.weight


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream `[B, T, D]`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TC, sin_TC)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Attention(nn.Module):
    """Causal attention in which `n_heads / n_kv_heads` query heads share one key-value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.d_head = config.d_head
        self.n_sharing = config.n_heads // config.n_kv_heads
        d_kv = config.n_kv_heads * config.d_head
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.key = nn.Linear(config.d_model, d_kv, bias=False)
        self.value = nn.Linear(config.d_model, d_kv, bias=False)
        self.output = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        q_BHTK = rotate(self._heads(self.query(x_BTD)), cos_TC, sin_TC)
        k_BGTK = rotate(self._heads(self.key(x_BTD)), cos_TC, sin_TC)
        v_BGTK = self._heads(self.value(x_BTD))
        k_BHTK, v_BHTK = self._shared(k_BGTK), self._shared(v_BGTK)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

    def _shared(self, x_BGTK: Tensor) -> Tensor:
        return x_BGTK.unsqueeze(2).expand(-1, -1, self.n_sharing, -1, -1).flatten(1, 2)


class MLP(nn.Module):
    """SwiGLU: D to F twice, one gating the other, and back to D.

    **Source:** Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_feed_forward, bias=False)
        self.up = nn.Linear(config.d_model, config.d_feed_forward, bias=False)
        self.down = nn.Linear(config.d_feed_forward, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.silu(self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(h_BTF)
