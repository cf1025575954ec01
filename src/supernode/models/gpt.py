"""GPT: a decoder-only transformer with learned positions, LayerNorm and a GELU MLP.

Names of tensors end in their dims: B batch, T tokens, D model, H heads, K one head, F feed-forward,
V vocabulary. Queries, keys and values are separate projections and no projection has a bias, so
that heads and feed-forward units can be split over chips with no remainder.

**Source:** Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section
2.3 (pre-norm blocks, initial residual projections scaled by the depth).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.language import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """The shape of a GPT; `d_model` is a multiple of `n_heads`, the MLP is four times as wide."""

    n_layers: int
    d_model: int
    n_heads: int
    context: int
    vocab: int


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

    def logits(self, tokens_BT: Tensor) -> Tensor:
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTD = self.token_embedding(tokens_BT) + self.position_embedding(positions_T)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.lm_head(self.norm(x_BTD))

    def _initialise(self, config: GPTConfig) -> None:
        # Tokens stand far apart and outweigh their positions at first, so that what follows a
        # token is learnt within tens of steps. A projection keeps the variance of what it reads;
        # the two that add to the residual stream share it out over the depth.
        nn.init.normal_(self.token_embedding.weight)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        for name, weight in self.blocks.named_parameters():
            if weight.dim() > 1:
                adds_to_residual = name.endswith(("output.weight", "down.weight"))
                shares = 2 * config.n_layers if adds_to_residual else 1
                nn.init.normal_(weight, std=(weight.shape[1] * shares) ** -0.5)
        nn.init.normal_(self.lm_head.weight, std=0.02)


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream `[B, T, D]`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Attention(nn.Module):
    """Causal attention with as many key and value heads as query heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.key = nn.Linear(config.d_model, config.d_model, bias=False)
        self.value = nn.Linear(config.d_model, config.d_model, bias=False)
        self.output = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = (
            project(x_BTD).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """The feed-forward half of a block: D to F = 4 D and back, token by token."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.gelu(self.up(x_BTD))
        return self.down(h_BTF)
