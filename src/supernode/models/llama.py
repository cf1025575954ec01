"""Llama and its kin: RMSNorm, rotary positions, grouped queries and SwiGLU, or experts of it.

One class with a few switches is Llama 2 and 3, Mistral, Mixtral, Qwen 1.5 to 3, Qwen3-MoE and
MiniMax-M2.
Names of tensors end in their dims: B batch, T tokens, D model, H query heads, G key-value heads,
K one head, C half a head, F feed-forward, V vocabulary.

**Source:** Dubey et al., "The Llama 3 Herd of Models", 2024, section 3.2; for the switches, the
Qwen2 (2024) and Qwen3 (2025) technical reports and Jiang et al., "Mixtral of Experts", 2024.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.cache import KVCache, Remembers, attend
from supernode.models.experts import Experts, ExpertsConfig
from supernode.models.language import LanguageModel, Tokens
from supernode.models.rotary import RMSNorm, normed_together, rotary_table, rotate


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama; `n_heads` is a multiple of `n_kv_heads`.

    A head has `d_model / n_heads` dims unless `head_dim` says otherwise. `qkv_bias` (Qwen 1.5 and
    2) gives queries, keys and values a bias, `qk_norm` (Qwen 3) normalises each head of queries and
    keys, `joint_norm` (MiniMax-M2) all heads of a token together, `tied` makes the head the table
    of embeddings, and `experts` takes the place of the MLP.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_feed_forward: int
    vocab: int
    context: int
    head_dim: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    joint_norm: bool = False
    tied: bool = False
    experts: ExpertsConfig | None = None
    rope_theta: float = 500_000.0
    norm_epsilon: float = 1e-5
    init_std: float = 0.02

    @property
    def d_head(self) -> int:
        return self.head_dim or self.d_model // self.n_heads


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
        if config.tied:
            self.lm_head.weight = self.embedding.weight
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=config.init_std)

    def hidden(self, tokens_BT: Tensor, at: Tokens) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        cos_TC, sin_TC = rotary_table(
            at.positions_T, self.config.d_head, self.config.rope_theta, dtype=x_BTD.dtype
        )
        for block in self.blocks:
            x_BTD = block(x_BTD, at, cos_TC, sin_TC)
        return self.norm(x_BTD)


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream `[B, T, D]`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.mlp = (
            MLP(config.d_model, config.d_feed_forward)
            if config.experts is None
            else Experts(config.d_model, config.experts)
        )

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), at, cos_TC, sin_TC)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Attention(Remembers):
    """Causal attention in which `n_heads / n_kv_heads` query heads share one key-value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.d_head = config.d_head
        self.n_kv_heads = config.n_kv_heads
        self.cache: KVCache | None = None
        d_query, d_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = nn.Linear(config.d_model, d_query, bias=config.qkv_bias)
        self.key = nn.Linear(config.d_model, d_kv, bias=config.qkv_bias)
        self.value = nn.Linear(config.d_model, d_kv, bias=config.qkv_bias)
        self.output = nn.Linear(d_query, config.d_model, bias=False)
        self.joint_norm = config.joint_norm
        widths = (d_query, d_kv) if config.joint_norm else (config.d_head, config.d_head)
        normed = config.qk_norm or config.joint_norm
        norms = (RMSNorm(n, config.norm_epsilon) if normed else nn.Identity() for n in widths)
        self.query_norm, self.key_norm = norms

    def add_cache(self, batch: int, places: int) -> None:
        self.cache = KVCache(batch, self.n_kv_heads, places, self.d_head)

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        q_BHTK, k_BGTK = (rotate(x, cos_TC, sin_TC) for x in self._normed(x_BTD))
        v_BGTK = self._heads(self.value(x_BTD))
        if self.cache is None:
            y_BHTK = attend(q_BHTK, k_BGTK, v_BGTK)
        else:
            y_BHTK = self.cache.attend(q_BHTK, k_BGTK, v_BGTK, at.positions_T, fresh=at.fresh)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))

    def _normed(self, x_BTD: Tensor) -> Iterator[Tensor]:
        """Queries `[B, H, T, K]`, then keys `[B, G, T, K]`, normalised if they are to be; each is
        computed when it is asked for, unless both are needed."""
        if isinstance(self.query_norm, RMSNorm) and self.joint_norm:
            assert isinstance(self.key_norm, RMSNorm)
            q_BTX, k_BTY = self.query(x_BTD), self.key(x_BTD)
            yield from map(
                self._heads, normed_together(self.query_norm, q_BTX, self.key_norm, k_BTY)
            )
        else:
            yield self.query_norm(self._heads(self.query(x_BTD)))
            yield self.key_norm(self._heads(self.key(x_BTD)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU: D to F twice, one gating the other, and back to D.

    **Source:** Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.
    """

    def __init__(self, d_model: int, d_feed_forward: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_feed_forward, bias=False)
        self.up = nn.Linear(d_model, d_feed_forward, bias=False)
        self.down = nn.Linear(d_feed_forward, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.silu(self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(h_BTF)
