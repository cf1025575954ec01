"""Rotary embeddings and kinds of attention."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .case import ROWS, Case

_HEAD = 32
_TURNS = torch.arange(ROWS)[:, None] / 10_000 ** (torch.arange(0, _HEAD, 2) / _HEAD)
COS, SIN = (torch.cat((f(_TURNS), f(_TURNS)), -1)[None] for f in (torch.cos, torch.sin))
_THREE = torch.stack((_TURNS, 2 * _TURNS, 3 * _TURNS))[:, None]  # of time, height and width
_COS3, _SIN3 = (torch.cat((f(_THREE), f(_THREE)), -1) for f in (torch.cos, torch.sin))
_SECTION = [4, 6, 6]
_QUERY_KEY = ((2, 4, ROWS, _HEAD), (2, 2, ROWS, _HEAD))
_COMPLEX = torch.polar(torch.ones_like(_TURNS), _TURNS)
_NEIGHBORS = 7


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-b, a), -1) * sin[:, None]


def _by_section(angles: Tensor) -> Tensor:
    parts = [one[i % 3] for i, one in enumerate(angles.double().split(_SECTION * 2, -1))]
    return torch.cat(parts, -1)


def _turned(x: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * _COMPLEX.to(pairs.dtype)[:, None]).flatten(-2)


def _multi_token(scores: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    probabilities = scores.masked_fill(later, float("-inf")).softmax(-1)
    return F.conv2d(probabilities, weight, bias, padding=1).masked_fill(later, 0)


def _neighborhood(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    place = torch.arange(q.shape[-2])
    far = (place[:, None] - place).abs() > _NEIGHBORS // 2
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(far, float("-inf"))
    return scores.softmax(-1) @ v


CASES = {
    "rope": Case(
        "rope.LigerRopeFunction",
        _QUERY_KEY,
        lambda f, q, k: f(q, k, COS, SIN),
        lambda q, k: tuple(_rotated(x, COS.double(), SIN.double()) for x in (q, k)),
    ),
    "llama4_rope": Case(
        "llama4_rope.LigerLlama4RopeFunction",
        ((2, ROWS, 4, _HEAD), (2, ROWS, 2, _HEAD)),
        lambda f, q, k: f(q, k, _COMPLEX),
        lambda q, k: (_turned(q), _turned(k)),
    ),
    "qwen2vl_mrope": Case(
        "qwen2vl_mrope.LigerQwen2VLMRopeFunction",
        ((1, *_QUERY_KEY[0][1:]), (1, *_QUERY_KEY[1][1:])),
        lambda f, q, k: f(q, k, _COS3, _SIN3, _SECTION),
        lambda q, k: tuple(_rotated(x, _by_section(_COS3), _by_section(_SIN3)) for x in (q, k)),
    ),
    "multi_token_attention": Case(
        "multi_token_attention.LigerMultiTokenAttentionFunction",
        ((2, 4, ROWS, ROWS), (4, 4, 3, 3), (4,)),
        lambda f, scores, weight, bias: f(scores, weight, bias, 1, 1),
        _multi_token,
    ),
    "fused_neighborhood_attention": Case(
        "fused_neighborhood_attention.LigerFusedNeighborhoodAttentionFunction",
        ((2, 3, ROWS, _HEAD),) * 3,
        lambda f, q, k, v: f(q, k, v, _NEIGHBORS),
        _neighborhood,
    ),
}
