"""Liger-Kernel's ops on the CPU backend, forward and backward, against torch in double precision.

`pip install --no-deps liger-kernel` anywhere (not into the environment of this project), its folder
on PYTHONPATH, then `python tools/triton_liger.py [OP…]`. Prints a table: per op the dtypes whose
results and gradients are as near as rounding allows. Exit status 1 if one is not.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, WIDTH, VOCABULARY = 37, 96, 300
NEAR = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""How far a result may be, as a part of the largest element: 100 and 10 times the rounding."""


@dataclass(frozen=True, slots=True)
class Case:
    """An op of Liger: module and class, the shapes of its tensors, how it and torch are called."""

    where: str
    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)


def _norm(x: Tensor, w: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * w


def _sparsemax(x: Tensor) -> Tensor:
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    total = ordered.cumsum(-1)
    last = (1 + count * ordered > total).sum(-1, keepdim=True)
    return (x - (total.gather(-1, last - 1) - 1) / last).clamp(min=0)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-b, a), -1) * sin[:, None]


def _jsd(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = teacher.exp(), student.exp()
    middle = ((p + q) / 2).log()
    return 0.5 * ((p * (teacher - middle)).sum(-1) + (q * (student - middle)).sum(-1)).mean()


def _poly(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    def norm(z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(-1, keepdim=True) + 1e-6)

    return w[0] * norm(x**3) + w[1] * norm(x**2) + w[2] * norm(x) + b


ANGLES = torch.arange(ROWS)[:, None] / 10_000 ** (torch.arange(0, 32, 2) / 32)
COS, SIN = (torch.cat((f(ANGLES), f(ANGLES)), -1)[None] for f in (torch.cos, torch.sin))
LABELS = torch.arange(ROWS) * 7 % VOCABULARY
LABELS[::5] = -100
IDS = torch.arange(2 * ROWS) * 11 % VOCABULARY
MATRIX, VECTOR = (ROWS, WIDTH), (WIDTH,)
PAIR = (MATRIX, MATRIX)
LOGITS = (ROWS, VOCABULARY)

CASES = {
    "rms_norm": Case(
        "rms_norm.LigerRMSNormFunction",
        (MATRIX, VECTOR),
        lambda f, x, w: f(x, w, 1e-6, 0.0, "llama", False),
        _norm,
    ),
    "fused_add_rms_norm": Case(
        "fused_add_rms_norm.LigerFusedAddRMSNormFunction",
        (MATRIX, MATRIX, VECTOR),
        lambda f, x, r, w: f(x, r, w, 1e-6),
        lambda x, r, w: (_norm(x + r, w), x + r),
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
    "softmax": Case(
        "softmax.LigerSoftmaxFunction", (MATRIX,), lambda f, x: f(x), lambda x: x.softmax(-1)
    ),
    "sparsemax": Case(
        "sparsemax.LigerSparsemaxFunction", (MATRIX,), lambda f, x: f(x, -1), _sparsemax
    ),
    "swiglu": Case(
        "swiglu.LigerSiLUMulFunction", PAIR, lambda f, a, b: f(a, b), lambda a, b: F.silu(a) * b
    ),
    "geglu": Case(
        "geglu.LigerGELUMulFunction",
        PAIR,
        lambda f, a, b: f(a, b),
        lambda a, b: F.gelu(a, approximate="tanh") * b,
    ),
    "relu_squared": Case(
        "relu_squared.LigerReLUSquaredFunction",
        (MATRIX,),
        lambda f, x: f(x),
        lambda x: F.relu(x).square(),
    ),
    "rope": Case(
        "rope.LigerRopeFunction",
        ((2, 4, ROWS, 32), (2, 2, ROWS, 32)),
        lambda f, q, k: f(q, k, COS, SIN),
        lambda q, k: tuple(_rotated(x, COS.double(), SIN.double()) for x in (q, k)),
        dtypes=(torch.float32,),
    ),
    "embedding": Case(
        "experimental.embedding.LigerEmbeddingFunction",
        ((VOCABULARY, WIDTH),),
        lambda f, w: f(w, IDS),
        lambda w: w[IDS],
    ),
    "cross_entropy": Case(
        "cross_entropy.LigerCrossEntropyFunction",
        (LOGITS,),
        lambda f, x: f(x, LABELS, None, -100, 0.0, 0.1, "mean", 30.0, False)[0],
        lambda x: F.cross_entropy(30 * torch.tanh(x / 30), LABELS, label_smoothing=0.1),
    ),
    "fused_linear_cross_entropy": Case(
        "fused_linear_cross_entropy.LigerFusedLinearCrossEntropyFunction",
        (MATRIX, (VOCABULARY, WIDTH)),
        lambda f, x, w: f(x, w, LABELS)[0],
        lambda x, w: F.cross_entropy(x @ w.t(), LABELS),
    ),
    "kl_div": Case(
        "kl_div.LigerKLDivLossFunction",
        (LOGITS,),
        lambda f, x: f(x.log_softmax(-1), _teacher(x).softmax(-1), "batchmean", False),
        lambda x: F.kl_div(x.log_softmax(-1), _teacher(x).softmax(-1), reduction="batchmean"),
        dtypes=(torch.float32,),
    ),
    "jsd": Case(
        "jsd.LigerJSDFunction",
        (LOGITS,),
        lambda f, x: f(x.log_softmax(-1), _teacher(x).log_softmax(-1)),
        lambda x: _jsd(x.log_softmax(-1), _teacher(x).log_softmax(-1)),
        dtypes=(torch.float32,),
    ),
    "tvd": Case(
        "tvd.LigerTVDLossFunction",
        (LOGITS,),
        lambda f, x: f(x.softmax(-1), _teacher(x).softmax(-1)),
        lambda x: 0.5 * (x.softmax(-1) - _teacher(x).softmax(-1)).abs().sum(-1).mean(),
        dtypes=(torch.float32,),
    ),
    "fused_linear_jsd": Case(
        "fused_linear_jsd.LigerFusedLinearJSDFunction",
        (MATRIX, (VOCABULARY, WIDTH)),
        lambda f, x, w: f(x, w, 2 * x.detach(), w.detach()),
        lambda x, w: _jsd(
            (x @ w.t()).log_softmax(-1), (2 * x.detach() @ w.detach().t()).log_softmax(-1)
        ),
        dtypes=(torch.float32,),
    ),
}  # fmt: skip


LEFT_OUT = {
    "dyt": "its backward asks for the number of a GPU's processors, and fails where there is none",
    "qwen2vl_mrope, grpo_loss, mhc, attn_res, multi_token_attention, tiled_mlp, fused_moe, "
    "fused_neighborhood_attention, modulated_rms_norm": "no reference is written here yet",
}


def _teacher(x: Tensor) -> Tensor:
    return x.detach().flip(0) * 0.5


def differs(case: Case, dtype: torch.dtype) -> str:
    """Where results or gradients are too far from torch's in double precision; else nothing."""
    module, _, name = case.where.rpartition(".")
    function = getattr(importlib.import_module(f"liger_kernel.ops.{module}"), name).apply
    torch.manual_seed(0)
    ours = [torch.randn(shape).to(dtype).requires_grad_() for shape in case.shapes]
    exact = [each.detach().double().requires_grad_() for each in ours]
    # Liger writes gradients into what it is given: copies.
    got = _listed(case.ours(function, *(each.clone() for each in ours)))
    want = _listed(case.plain(*exact))
    seeds = [torch.randn_like(each) for each in got]
    gradients = torch.autograd.grad(got, ours, [seed.clone() for seed in seeds])
    wanted = torch.autograd.grad(want, exact, [seed.double() for seed in seeds])
    for kind, found, true in (("result", got, want), ("gradient", gradients, wanted)):
        for number, (a, b) in enumerate(zip(found, true, strict=True)):
            away = ((a.double() - b).abs().max() / b.abs().max()).item()
            if not away <= NEAR[dtype]:
                return f"{kind} {number} is {away:.1e} off"
    return ""


def _listed(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, tuple | list) else [out]


def main() -> int:
    """The exit status: 1 if an op is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", default=list(CASES))
    asked = parser.parse_args()
    import triton_cpu

    triton_cpu.activate()
    logging.disable(logging.CRITICAL)
    failed = 0
    print("| op | right in | wrong |\n| --- | --- | --- |")
    for op in asked.ops:
        right: list[str] = []
        wrong: list[str] = []
        for dtype in CASES[op].dtypes:
            name = str(dtype).removeprefix("torch.")
            try:
                found = differs(CASES[op], dtype)
            except Exception as error:
                found = f"{type(error).__name__}: {error}".replace("\n", " ")[:160]
            (wrong if found else right).append(f"{name}: {found}" if found else name)
        failed |= bool(wrong)
        print(f"| {op} | {', '.join(right)} | {'; '.join(wrong)} |")
        sys.stdout.flush()
    for op, why in LEFT_OUT.items():
        print(f"| {op} | | left out: {why} |")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
