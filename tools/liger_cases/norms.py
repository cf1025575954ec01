"""Norms, and what stands in for one."""

import torch.nn.functional as F
from torch import Tensor

from .case import MATRIX, VECTOR, Case, rms


def _poly(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return w[0] * rms(x**3) + w[1] * rms(x**2) + w[2] * rms(x) + b


def _attention_over_layers(layers: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    scores = (rms(layers) * weight * query).sum(-1, keepdim=True)
    return (scores.softmax(0) * layers).sum(0)


CASES = {
    "rms_norm": Case(
        "rms_norm.LigerRMSNormFunction",
        (MATRIX, VECTOR),
        lambda f, x, w: f(x, w, 1e-6, 0.0, "llama", False),
        lambda x, w: rms(x) * w,
    ),
    "fused_add_rms_norm": Case(
        "fused_add_rms_norm.LigerFusedAddRMSNormFunction",
        (MATRIX, MATRIX, VECTOR),
        lambda f, x, r, w: f(x, r, w, 1e-6),
        lambda x, r, w: (rms(x + r) * w, x + r),
    ),
    "modulated_rms_norm": Case(
        "modulated_rms_norm.LigerModulatedRMSNormFunction",
        (MATRIX, VECTOR, MATRIX, MATRIX),
        lambda f, x, w, scale, shift: f(x, w, scale, shift, 1e-6, 0.0, "llama", False),
        lambda x, w, scale, shift: (1 + scale) * rms(x) * w + shift,
    ),
    "layer_norm": Case(
        "layer_norm.LigerLayerNormFunction",
        (MATRIX, VECTOR, VECTOR),
        lambda f, x, w, b: f(x, w, b, 1e-5),
        lambda x, w, b: F.layer_norm(x, VECTOR, w, b, 1e-5),
    ),
    "group_norm": Case(
        "group_norm.LigerGroupNormFunction",
        ((3, 12, 40), (12,), (12,)),
        lambda f, x, w, b: f(x, w, b, 12, 3, 1e-5),
        lambda x, w, b: F.group_norm(x, 3, w, b, 1e-5),
    ),
    "poly_norm": Case(
        "poly_norm.LigerPolyNormFunction",
        (MATRIX, (3,), ()),
        lambda f, x, w, b: f(x, w, b, 1e-6, False),
        _poly,
    ),
    "dyt": Case(
        "dyt.LigerDyTFunction",
        (MATRIX, (1,), VECTOR, VECTOR),
        lambda f, x, a, w, b: f(x, a, w, b),
        lambda x, a, w, b: w * (a * x).tanh() + b,
        # Its backward pass knows how many programs to run on GPUs and NPUs only.
        told={"infer_device": lambda: "npu", "get_npu_core_count": lambda: 4},
    ),
    "attn_res": Case(
        "attn_res.LigerAttnResFunction",
        ((3, *MATRIX), VECTOR, VECTOR),
        lambda f, layers, query, weight: f(layers, query, weight, 1e-6),
        _attention_over_layers,
    ),
}
