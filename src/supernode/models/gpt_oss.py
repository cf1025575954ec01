"""gpt-oss: experts with biases, attention with sinks, and a window in every other layer.

The stretched rotary frequencies (YaRN) are left out: they change no shape and no cost.
Names of tensors end in their dims: B batch, T tokens, D model, H query heads, G key-value heads,
S places of a cache, K one head, C half a head.

**Source:** OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2; the configuration
files of the two models.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supernode.models.cache import Remembers
from supernode.models.experts import Experts, ExpertsConfig
from supernode.models.language import LanguageModel, Tokens
from supernode.models.rotary import RMSNorm, rotary_table, rotate
from supernode.models.sinks import looking_back, sunk, windowed

GUESSES = 3
"""A layer with a window remembers so many tokens more, so that a step may check guesses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOssConfig:
    """The shape of a gpt-oss; `n_heads` is a multiple of `n_kv_heads`. The first layer and every
    second one after it look back `window` tokens, their own included."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    experts: ExpertsConfig
    window: int
    vocab: int
    context: int
    rope_theta: float = 150_000.0
    norm_epsilon: float = 1e-5
    init_std: float = 0.02


class GptOss(LanguageModel):
    """The model of `config`, freshly initialised from torch's global generator."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        self.vocab = config.vocab
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(
            Block(config, config.window if layer % 2 == 0 else 0)
            for layer in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.lm_head = nn.Linear(config.d_model, config.vocab, bias=False)
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
    """One layer: attention, then experts, each added to the residual stream `[B, T, D]`."""

    def __init__(self, config: GptOssConfig, window: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.attention = Attention(config, window)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.mlp = Experts(config.d_model, config.experts)

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), at, cos_TC, sin_TC)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Attention(Remembers):
    """Causal attention with grouped heads and sinks, to the last `window` tokens or, with 0, to
    all; in a cache the token of position p is in place p modulo its places."""

    keys_BGSK: Tensor
    values_BGSK: Tensor

    def __init__(self, config: GptOssConfig, window: int) -> None:
        super().__init__()
        self.d_head, self.n_kv_heads, self.window = config.d_head, config.n_kv_heads, window
        d_query, d_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = nn.Linear(config.d_model, d_query)
        self.key = nn.Linear(config.d_model, d_kv)
        self.value = nn.Linear(config.d_model, d_kv)
        self.output = nn.Linear(d_query, config.d_model)
        self.sinks = nn.Parameter(torch.zeros(config.n_heads))
        self.places = 0

    def add_cache(self, batch: int, places: int) -> None:
        self.places = min(places, self.window + GUESSES) if self.window else places
        for name in ("keys_BGSK", "values_BGSK"):
            zeros = torch.zeros(batch, self.n_kv_heads, self.places, self.d_head)
            self.register_buffer(name, zeros, persistent=False)

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        q_BHTK = rotate(self._heads(self.query(x_BTD)), cos_TC, sin_TC)
        k_BGTK = rotate(self._heads(self.key(x_BTD)), cos_TC, sin_TC)
        v_BGTK = self._heads(self.value(x_BTD))
        if self.places:
            self._remember(k_BGTK, v_BGTK, at.positions_T)
        if not at.fresh:
            y_BHTK = self._of_cache(q_BHTK, at.positions_T)
        elif self.window:
            y_BHTK = windowed(q_BHTK, k_BGTK, v_BGTK, self.sinks, self.window)
        else:
            y_BHTK = sunk(q_BHTK, k_BGTK, v_BGTK, self.sinks)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))

    def _of_cache(self, q_BHTK: Tensor, positions_T: Tensor) -> Tensor:
        tokens = len(positions_T)
        if self.window and tokens > 1 + GUESSES:
            raise ValueError(f"a step checks up to {GUESSES} guesses, not {tokens - 1}")
        mask_TS = looking_back(positions_T, self.places, self.window, q_BHTK.dtype)
        return sunk(q_BHTK, self.keys_BGSK, self.values_BGSK, self.sinks, mask_TS)

    def _remember(self, k_BGTK: Tensor, v_BGTK: Tensor, positions_T: Tensor) -> None:
        kept = min(len(positions_T), self.places)
        places = positions_T[-kept:] % self.places
        self.keys_BGSK.index_copy_(2, places, k_BGTK[:, :, -kept:])
        self.values_BGSK.index_copy_(2, places, v_BGTK[:, :, -kept:])

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)
