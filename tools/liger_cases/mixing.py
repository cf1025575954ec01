"""Gated units and MLPs, experts, hyper-connections, embeddings, and a product of small integers."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .case import MATRIX, ROWS, SINGLE, VOCABULARY, WIDTH, Case, rms

IDS = torch.arange(2 * ROWS) * 11 % VOCABULARY
_PAIR = (MATRIX, MATRIX)
_HIDDEN, _EXPERTS, _CHOSEN = 64, 4, 2
_CHOICE = torch.stack((torch.arange(ROWS) % _EXPERTS, (torch.arange(ROWS) * 3 + 1) % _EXPERTS), 1)
_CHOICE[:, 1] = torch.where(
    _CHOICE[:, 0] == _CHOICE[:, 1], (_CHOICE[:, 1] + 1) % _EXPERTS, _CHOICE[:, 1]
)
_STREAMS, _ROUNDS, _SINKHORN_EPS, _PRE_EPS = 4, 3, 1e-6, 1e-4
_COEFFICIENTS = _STREAMS * (2 + _STREAMS)


def _sparsemax(x: Tensor) -> Tensor:
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    total = ordered.cumsum(-1)
    last = (1 + count * ordered > total).sum(-1, keepdim=True)
    return (x - (total.gather(-1, last - 1) - 1) / last).clamp(min=0)


def _tiled(f: Any, x: Tensor) -> Tensor:
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    def gated(_: Any, part: Tensor) -> Tensor:
        return LigerSiLUMulFunction.apply(part, part.flip(-1))

    return f(gated, SimpleNamespace(), x, 3)


def _mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def _experts(x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for slot in range(_CHOSEN):
        gate, up = torch.einsum("th,tih->ti", x, gate_up[_CHOICE[:, slot]]).chunk(2, -1)
        each = torch.einsum("ti,thi->th", F.silu(gate) * up, down[_CHOICE[:, slot]])
        out = out + weights[:, slot, None] * each
    return out


def _coefficients(x: Tensor, phi: Tensor, b: Tensor, *alphas: Tensor) -> tuple[Tensor, ...]:
    mix = rms(x.flatten(-2)) @ phi
    sizes = (_STREAMS, _STREAMS, _STREAMS**2)
    parts = zip(mix.split(sizes, -1), alphas, b.split(sizes), strict=True)
    pre, post, rest = (part * alpha + bias for part, alpha, bias in parts)
    square = rest.unflatten(-1, (_STREAMS, _STREAMS)).softmax(-1) + _SINKHORN_EPS
    square = square / (square.sum(-2, keepdim=True) + _SINKHORN_EPS)
    for _ in range(_ROUNDS - 1):
        square = square / (square.sum(-1, keepdim=True) + _SINKHORN_EPS)
        square = square / (square.sum(-2, keepdim=True) + _SINKHORN_EPS)
    return pre.sigmoid() + _PRE_EPS, 2 * post.sigmoid(), square


def _small_integers(x: Tensor) -> tuple[Tensor, Tensor]:
    return (8 * x[:, :512]).to(torch.int8), x[:, 512:].T.sign().to(torch.int8).contiguous()


def _packed_product(f: Any, x: Tensor) -> Tensor:
    from liger_kernel.ops.experimental.mm_int8int2 import pack_weights

    a, b = _small_integers(x.detach())
    return f(a.contiguous(), pack_weights(b))


def _product(x: Tensor) -> Tensor:
    a, b = _small_integers(x.detach())
    return a.double() @ b.double()


CASES = {
    "softmax": Case(
        "softmax.LigerSoftmaxFunction", (MATRIX,), lambda f, x: f(x), lambda x: x.softmax(-1)
    ),
    "sparsemax": Case(
        "sparsemax.LigerSparsemaxFunction", (MATRIX,), lambda f, x: f(x, -1), _sparsemax
    ),
    "swiglu": Case(
        "swiglu.LigerSiLUMulFunction", _PAIR, lambda f, a, b: f(a, b), lambda a, b: F.silu(a) * b
    ),
    "swiglu (gate and up in one)": Case(
        "swiglu.LigerFusedGateUpSiLUMulFunction",
        ((ROWS, 2 * WIDTH),),
        lambda f, x: f(x),
        lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    ),
    "geglu": Case(
        "geglu.LigerGELUMulFunction",
        _PAIR,
        lambda f, a, b: f(a, b),
        lambda a, b: F.gelu(a, approximate="tanh") * b,
    ),
    "relu_squared": Case(
        "relu_squared.LigerReLUSquaredFunction",
        (MATRIX,),
        lambda f, x: f(x),
        lambda x: F.relu(x).square(),
    ),
    "mlp": Case(
        "mlp.LigerMLPFunction",
        ((2, ROWS, WIDTH), (_HIDDEN, WIDTH), (_HIDDEN, WIDTH), (WIDTH, _HIDDEN)),
        lambda f, x, gate, up, down: f(x, gate, up, down),
        _mlp,
        told={"torch.Tensor.is_cuda": True},
    ),
    "tiled_mlp": Case(
        "tiled_mlp.LigerTiledMLPFunction", (MATRIX,), _tiled, lambda x: F.silu(x) * x.flip(-1)
    ),
    "fused_moe": Case(
        "fused_moe.LigerFusedMoEFunction",
        (
            (ROWS, WIDTH),
            (_EXPERTS, 2 * _HIDDEN, WIDTH),
            (_EXPERTS, WIDTH, _HIDDEN),
            (ROWS, _CHOSEN),
        ),
        lambda f, x, gate_up, down, w: f(x, gate_up, down, _CHOICE.int(), w),
        _experts,
    ),
    "mhc (coefficients)": Case(
        "mhc.LigerMHCCoeffsFunction",
        ((ROWS, _STREAMS, 32), (_STREAMS * 32, _COEFFICIENTS), (_COEFFICIENTS,), (), (), ()),
        lambda f, *given: f(*given, True, _ROUNDS, 1e-6, _PRE_EPS, _SINKHORN_EPS, 2.0),
        _coefficients,
    ),
    "mhc (before)": Case(
        "mhc.LigerMHCPreFunction",
        ((ROWS, _STREAMS, WIDTH), (ROWS, _STREAMS)),
        lambda f, x, w: f(x, w),
        lambda x, w: torch.einsum("nsc,ns->nc", x, w),
    ),
    "mhc (after)": Case(
        "mhc.LigerMHCPostResFunction",
        ((ROWS, _STREAMS, WIDTH), MATRIX, (ROWS, _STREAMS), (ROWS, _STREAMS, _STREAMS)),
        lambda f, x, out, post, res: f(x, out, post, res),
        lambda x, out, post, res: (
            torch.einsum("noi,nic->noc", res, x) + post[..., None] * out[:, None]
        ),
    ),
    "embedding": Case(
        "experimental.embedding.LigerEmbeddingFunction",
        ((VOCABULARY, WIDTH),),
        lambda f, w: f(w, IDS),
        lambda w: w[IDS],
    ),
    "mm_int8int2": Case(
        "experimental.mm_int8int2.matmul", ((128, 1024),), _packed_product, _product, dtypes=SINGLE
    ),
}
