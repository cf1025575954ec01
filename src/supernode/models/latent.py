"""Multi-head latent attention: keys and values of all heads are made of one small latent.

A cache holds the latent and one rotary key a token, not keys and values of every head. To read it,
decoding folds the matrices that would make keys and values into the query and the output, so that
all heads attend to the latent itself.

Names of tensors end in their dims: B batch, T tokens, S places of the cache, D model, H heads,
Q the latent of queries, L the latent of keys and values, N a head's part without position,
R its rotary part, K = N + R, W = L + R.

**Source:** DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1 and appendix C.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.cache import Remembers, attend, seen
from supernode.models.language import Tokens
from supernode.models.rotary import RMSNorm, rotate


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig:
    """The shape of latent attention; the widths are those of one head but for the two latents."""

    n_heads: int
    d_query_latent: int = 1536
    d_latent: int = 512
    d_plain: int = 128
    d_rotary: int = 64
    d_value: int = 128


class LatentAttention(Remembers):
    """Causal latent attention: `[B, T, D]` to `[B, T, D]`."""

    latents_B1SW: Tensor

    def __init__(self, d_model: int, config: LatentConfig, norm_epsilon: float) -> None:
        super().__init__()
        self.config = config
        heads, plain, rotary = config.n_heads, config.d_plain, config.d_rotary
        self.scale = (plain + rotary) ** -0.5
        self.query_down = nn.Linear(d_model, config.d_query_latent, bias=False)
        self.query_norm = RMSNorm(config.d_query_latent, norm_epsilon)
        self.query_up = nn.Linear(config.d_query_latent, heads * (plain + rotary), bias=False)
        self.latent_down = nn.Linear(d_model, config.d_latent + rotary, bias=False)
        self.latent_norm = RMSNorm(config.d_latent, norm_epsilon)
        self.key_up = nn.Linear(config.d_latent, heads * plain, bias=False)
        self.value_up = nn.Linear(config.d_latent, heads * config.d_value, bias=False)
        self.output = nn.Linear(heads * config.d_value, d_model, bias=False)
        self.cached = False

    def add_cache(self, batch: int, places: int) -> None:
        self.cached = True
        width = self.config.d_latent + self.config.d_rotary
        zeros = torch.zeros(batch, 1, places, width)
        self.register_buffer("latents_B1SW", zeros, persistent=False)

    def forward(self, x_BTD: Tensor, at: Tokens, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
        config = self.config
        q_BTQ = self.query_norm(self.query_down(x_BTD))
        q_BHTK = self.query_up(q_BTQ).unflatten(-1, (config.n_heads, -1)).transpose(1, 2)
        q_BHTN, q_BHTR = q_BHTK.split([config.d_plain, config.d_rotary], dim=-1)
        q_BHTR = rotate(pairs_apart(q_BHTR), cos_TC, sin_TC)
        latent_BTL, k_BTR = self.latent_down(x_BTD).split([config.d_latent, config.d_rotary], -1)
        latent_BTL = self.latent_norm(latent_BTL)
        k_B1TR = rotate(pairs_apart(k_BTR.unsqueeze(1)), cos_TC, sin_TC)
        if self.cached:
            w_B1TW = torch.cat([latent_BTL.unsqueeze(1), k_B1TR], dim=-1)
            self.latents_B1SW.index_copy_(2, at.positions_T, w_B1TW)
        if at.fresh:
            y_BHTV = self._expanded(q_BHTN, q_BHTR, latent_BTL, k_B1TR)
        else:
            y_BHTV = self._folded(q_BHTN, q_BHTR, at.positions_T)
        return self.output(y_BHTV.transpose(1, 2).flatten(2))

    def _expanded(
        self, q_BHTN: Tensor, q_BHTR: Tensor, latent_BTL: Tensor, k_B1TR: Tensor
    ) -> Tensor:
        """Keys and values of every head; values are padded to the width of keys, as kernels ask."""
        k_BHTN, v_BHTV = (
            up(latent_BTL).unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2)
            for up in (self.key_up, self.value_up)
        )
        k_BHTR = k_B1TR.expand(-1, self.config.n_heads, -1, -1)
        q_BHTK = torch.cat([q_BHTN, q_BHTR], dim=-1)
        k_BHTK = torch.cat([k_BHTN, k_BHTR], dim=-1)
        missing = k_BHTK.shape[-1] - v_BHTV.shape[-1]
        y_BHTK = attend(q_BHTK, k_BHTK, F.pad(v_BHTV, (0, missing)), self.scale)
        return y_BHTK[..., : self.config.d_value]

    def _folded(self, q_BHTN: Tensor, q_BHTR: Tensor, positions_T: Tensor) -> Tensor:
        """All heads attend to the latents of the cache, which are both keys and values."""
        config = self.config
        key_up_HNL = self.key_up.weight.unflatten(0, (config.n_heads, -1))
        value_up_HVL = self.value_up.weight.unflatten(0, (config.n_heads, -1))
        # By einsum: a broadcast product would copy the matrices for every sequence.
        q_BHTL = torch.einsum("bhtn,hnl->bhtl", q_BHTN, key_up_HNL)
        q_BHTW = torch.cat([q_BHTL, q_BHTR], dim=-1)
        y_BHTW = F.scaled_dot_product_attention(
            q_BHTW,
            self.latents_B1SW,
            self.latents_B1SW,
            attn_mask=seen(positions_T, self.latents_B1SW.shape[2]),
            scale=self.scale,
            enable_gqa=True,
        )
        return torch.einsum("bhtl,hvl->bhtv", y_BHTW[..., : config.d_latent], value_up_HVL)


def pairs_apart(x: Tensor) -> Tensor:
    """A head whose rotary pairs are neighbours, (0, 1), (2, 3) …, as first halves, then second.

    Queries and keys are reordered alike, so that scores stay what they were.
    """
    return torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)
