"""DeepSeek-V3: latent attention, many small experts with a shared one, prediction of two tokens.

Names of tensors end in their dims: B batch, T tokens, D model.

**Source:** DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, sections 2 and 4.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supernode.models.experts import Experts, ExpertsConfig
from supernode.models.language import LanguageModel, Tokens, cross_entropy, first_tokens
from supernode.models.latent import LatentAttention, LatentConfig
from supernode.models.llama import MLP
from supernode.models.rotary import RMSNorm, rotary_table

IGNORED = -100
"""The target of a token that no loss counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeekConfig:
    """The shape of a DeepSeek-V3.

    The first `n_dense` layers have an MLP of `d_feed_forward`, the others experts, with an MLP of
    `n_shared` experts' width for every token. `n_ahead` modules each predict one token more; in
    training their mean loss counts `ahead_share`.
    """

    n_layers: int
    d_model: int
    d_feed_forward: int
    attention: LatentConfig
    experts: ExpertsConfig
    vocab: int
    context: int
    n_dense: int = 3
    n_shared: int = 1
    n_ahead: int = 1
    ahead_share: float = 0.3
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    init_std: float = 0.02


class DeepSeek(LanguageModel):
    """The model of `config`, freshly initialised from torch's global generator."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        self.vocab = config.vocab
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(
            Block(config, dense=layer < config.n_dense) for layer in range(config.n_layers)
        )
        self.norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.lm_head = nn.Linear(config.d_model, config.vocab, bias=False)
        self.ahead = nn.ModuleList(Ahead(config) for _ in range(config.n_ahead))
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=config.init_std)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        at = first_tokens(tokens_BT)
        x_BTD = self.layers(tokens_BT, at)
        loss = cross_entropy(self.lm_head(self.norm(x_BTD)), targets_BT)
        losses: list[Tensor] = []
        for module in self.ahead:
            # Module k reads the token that follows by k, and predicts the one after that. The last
            # tokens of a sequence have none, so they are left out of the mean.
            x_BTD = module(x_BTD, self.embedding(targets_BT.clamp(min=0)), self)
            targets_BT = torch.cat(
                [targets_BT[:, 1:], torch.full_like(targets_BT[:, :1], IGNORED)], dim=1
            )
            losses.append(cross_entropy(self.lm_head(self.norm(x_BTD)), targets_BT))
        if not losses:
            return loss
        return loss + self.config.ahead_share * torch.stack(losses).mean()

    def layers(self, tokens_BT: Tensor, at: Tokens) -> Tensor:
        """What the last layer gives, not yet normalised: `[B, T, D]`."""
        x_BTD = self.embedding(tokens_BT)
        turns = self.turns(at, x_BTD.dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD, at, *turns)
        return x_BTD

    def hidden(self, tokens_BT: Tensor, at: Tokens) -> Tensor:
        return self.norm(self.layers(tokens_BT, at))

    def turns(self, at: Tokens, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The rotary table of these tokens."""
        config = self.config
        return rotary_table(
            at.positions_T, config.attention.d_rotary, config.rope_theta, dtype=dtype
        )


class Block(nn.Module):
    """One layer: latent attention, then an MLP or experts, each added to the residual stream."""

    def __init__(self, config: DeepSeekConfig, *, dense: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.attention = LatentAttention(config.d_model, config.attention, config.norm_epsilon)
        self.mlp_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.mlp = (
            MLP(config.d_model, config.d_feed_forward)
            if dense
            else Experts(config.d_model, config.experts)
        )
        self.shared = (
            None
            if dense or not config.n_shared
            else MLP(config.d_model, config.n_shared * config.experts.d_expert)
        )

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), at, cos_TC, sin_TC)
        y_BTD = self.mlp_norm(x_BTD)
        out_BTD = self.mlp(y_BTD)
        if self.shared is not None:
            out_BTD = out_BTD + self.shared(y_BTD)
        return x_BTD + out_BTD


class Ahead(nn.Module):
    """One module of multi-token prediction: the stream so far and the next token, joined."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.stream_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.token_norm = RMSNorm(config.d_model, config.norm_epsilon)
        self.join = nn.Linear(2 * config.d_model, config.d_model, bias=False)
        self.block = Block(config, dense=False)

    def forward(self, x_BTD: Tensor, next_BTD: Tensor, model: DeepSeek) -> Tensor:
        joined_BTD = torch.cat([self.token_norm(next_BTD), self.stream_norm(x_BTD)], dim=-1)
        positions_T = torch.arange(joined_BTD.shape[1], device=joined_BTD.device)
        at = Tokens(positions_T=positions_T)
        return self.block(self.join(joined_BTD), at, *model.turns(at, joined_BTD.dtype))
