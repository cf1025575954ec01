"""Rotary positions and RMS normalisation: what Llama and its descendants share.

Names of tensors end in their dims: B batch, T tokens, D model, H heads, K one head, C half a head.
"""

import torch
from torch import Tensor, nn


def rotary_table(
    positions_T: Tensor, d_head: int, theta: float, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine `[T, C]` of the rotary angles of heads of `d_head`.

    **Source:** Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
    equation 15: pair c of a head turns by `position * theta ** (-2c / K)`.
    """
    pairs_C = torch.arange(0, d_head, 2, device=positions_T.device, dtype=torch.float32)
    frequencies_C = theta ** (-pairs_C / d_head)
    angles_TC = positions_T.to(torch.float32)[:, None] * frequencies_C[None, :]
    return angles_TC.cos().to(dtype), angles_TC.sin().to(dtype)


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


def normed_together(
    first: RMSNorm, a_BTX: Tensor, second: RMSNorm, b_BTY: Tensor
) -> tuple[Tensor, Tensor]:
    """`first(a)` and `second(b)`, with the mean squares of both in one tensor: chips that each have
    a part of the dims add them up once, not twice.

    **Source:** vLLM, `MiniMaxText01RMSNormTP.forward_qk`.
    """
    wide_BTX, wide_BTY = a_BTX.float(), b_BTY.float()
    means_BT2 = torch.cat([x.pow(2).mean(-1, keepdim=True) for x in (wide_BTX, wide_BTY)], dim=-1)
    scale_BT2 = (means_BT2 + first.epsilon).rsqrt()
    a = (wide_BTX * scale_BT2[..., :1]).to(a_BTX.dtype) * first.weight
    b = (wide_BTY * scale_BT2[..., 1:]).to(b_BTY.dtype) * second.weight
    return a, b
