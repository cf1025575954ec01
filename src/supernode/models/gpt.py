"""GPT: a decoder-only transformer with learned positions, LayerNorm and a GELU MLP.

Names of tensors end in their dims: B batch, T tokens, D model, H heads, K one head, F feed-forward,
V vocabulary. Queries, keys and values are separate projections, so that heads and feed-forward
units can be split over chips with no remainder.

**Source:** Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section
2.3 (pre-norm blocks, initial residual projections scaled by the depth).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.cache import KVCache, Remembers, attend
from supernode.models.language import LanguageModel, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """The shape of a GPT; `d_model` is a multiple of `n_heads`.

    `d_feed_forward` is four times the width if not given. `bias` gives every projection one, as in
    the published GPTs; `tied` makes the head the table of token embeddings.
    """

    n_layers: int
    d_model: int
    n_heads: int
    context: int
    vocab: int
    d_feed_forward: int | None = None
    bias: bool = False
    tied: bool = False
    fused_attention: bool = True


class GPT(LanguageModel):
    """The model of `config`, freshly initialised from torch's global generator."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.context = config.context
        self.vocab = config.vocab
        self.token_embedding = nn.Embedding(config.vocab, config.d_model)
        self.position_embedding = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.lm_head = nn.Linear(config.d_model, config.vocab, bias=False)
        self._initialise(config)
        if config.tied:
            self.lm_head.weight = self.token_embedding.weight

    def hidden(self, tokens_BT: Tensor, at: Tokens) -> Tensor:
        x_BTD = self.token_embedding(tokens_BT) + self.position_embedding(at.positions_T)
        for block in self.blocks:
            x_BTD = block(x_BTD, at)
        return self.norm(x_BTD)

    def _initialise(self, config: GPTConfig) -> None:
        # Tokens stand far apart and outweigh their positions at first, so that what follows a
        # token is learnt within tens of steps. A projection keeps the variance of what it reads;
        # the two that add to the residual stream share it out over the depth.
        nn.init.normal_(self.token_embedding.weight, std=0.02 if config.tied else 1.0)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        for name, weight in self.blocks.named_parameters():
            if weight.dim() > 1:
                adds_to_residual = name.endswith(("output.weight", "down.weight"))
                shares = 2 * config.n_layers if adds_to_residual else 1
                nn.init.normal_(weight, std=(weight.shape[1] * shares) ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        nn.init.normal_(self.lm_head.weight, std=0.02)


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream `[B, T, D]`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, at: Tokens) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), at)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Attention(Remembers):
    """Causal attention with as many key and value heads as query heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.d_head = config.d_model // config.n_heads
        self.fused = config.fused_attention
        self.cache: KVCache | None = None
        self.query = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.key = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.value = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.output = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def add_cache(self, batch: int, places: int) -> None:
        self.cache = KVCache(batch, self.n_heads, places, self.d_head)

    def forward(self, x_BTD: Tensor, at: Tokens) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = (
            project(x_BTD).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if self.cache is None:
            y_BHTK = (attend if self.fused else by_scores)(q_BHTK, k_BHTK, v_BHTK)
        else:
            y_BHTK = self.cache.attend(q_BHTK, k_BHTK, v_BHTK, at.positions_T, fresh=at.fresh)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))


def by_scores(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
    """Causal attention op by op, with all its scores in memory, as before fused kernels."""
    tokens, width = q_BHTK.shape[2:]
    scores_BHTT = q_BHTK @ k_BHTK.transpose(2, 3) * width**-0.5
    later_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=q_BHTK.device).triu(1)
    return scores_BHTT.masked_fill(later_TT, -torch.inf).softmax(-1) @ v_BHTK


class MLP(nn.Module):
    """The feed-forward half of a block: D to F and back, token by token."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.d_feed_forward or 4 * config.d_model
        self.up = nn.Linear(config.d_model, width, bias=config.bias)
        self.down = nn.Linear(width, config.d_model, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.gelu(self.up(x_BTD))
        return self.down(h_BTF)
