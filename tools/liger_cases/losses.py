"""Losses, some of them together with the last linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .case import LOGITS, MATRIX, ROWS, SINGLE, VOCABULARY, WIDTH, Case

LABELS = torch.arange(ROWS) * 7 % VOCABULARY
LABELS[::5] = -100
_LINEAR = (MATRIX, (VOCABULARY, WIDTH))
_BATCH, _LENGTH = 3, 6
_TOKENS = torch.arange(_BATCH * _LENGTH).view(_BATCH, _LENGTH) * 13 % VOCABULARY
_ADVANTAGES = torch.tensor([1.0, -0.5, 2.0])
_MASK = torch.ones(_BATCH, _LENGTH, dtype=torch.long)
_MASK[1, 4:] = 0
_TEMPERATURE, _BETA, _CLIP = 0.9, 0.04, 0.2


def _teacher(x: Tensor) -> Tensor:
    return x.detach().flip(0) * 0.5


def _jsd(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = teacher.exp(), student.exp()
    middle = ((p + q) / 2).log()
    return 0.5 * ((p * (teacher - middle)).sum(-1) + (q * (student - middle)).sum(-1)).mean()


def _ce_tvd(x: Tensor) -> tuple[Tensor, Tensor]:
    away = 0.5 * (x.softmax(-1) - _teacher(x).softmax(-1)).abs().sum(-1)
    return F.cross_entropy(x, LABELS, reduction="none"), away * (LABELS != -100)


def _log_probabilities(x: Tensor) -> Tensor:
    logits = x[:, :-1] / _TEMPERATURE
    return logits.log_softmax(-1).gather(-1, _TOKENS[..., None])[..., 0]


def _old_and_reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of two other policies: some ratios are clipped, some are not."""
    now = _log_probabilities(x.detach().double())
    shift = 0.3 * torch.sin(torch.arange(_BATCH * _LENGTH).double()).view(_BATCH, _LENGTH)
    return (now - shift).float(), (now + shift.flip(0)).float()


def _grpo(x: Tensor) -> Tensor:
    now = _log_probabilities(x)
    old, reference = (each.double() for each in _old_and_reference(x))
    ratio, gain = (now - old).exp(), _ADVANTAGES.double()[:, None]
    loss = -torch.minimum(ratio * gain, ratio.clamp(1 - _CLIP, 1 + _CLIP) * gain)
    loss = loss + _BETA * ((reference - now).exp() - (reference - now) - 1)
    return ((loss * _MASK).sum(-1) / _MASK.sum(-1)).mean()


def _our_grpo(f, x: Tensor) -> Tensor:
    old, reference = _old_and_reference(x)
    given = (old, reference, _TOKENS, _ADVANTAGES, _MASK)
    return f(x, *given, _TEMPERATURE, _BETA, _CLIP, _CLIP, False)[0]


CASES = {
    "cross_entropy": Case(
        "cross_entropy.LigerCrossEntropyFunction",
        (LOGITS,),
        lambda f, x: f(x, LABELS, None, -100, 0.0, 0.1, "mean", 30.0, False)[0],
        lambda x: F.cross_entropy(30 * torch.tanh(x / 30), LABELS, label_smoothing=0.1),
    ),
    "vocab_parallel_cross_entropy": Case(
        "vocab_parallel_cross_entropy.LigerVocabParallelCEFunction",
        ((ROWS, 1, VOCABULARY),),
        lambda f, x: f(x, LABELS[:, None], None, -100, 0.0, "pytorch", "global"),
        lambda x: F.cross_entropy(x[:, 0], LABELS, reduction="none")[:, None],
    ),
    "fused_linear_cross_entropy": Case(
        "fused_linear_cross_entropy.LigerFusedLinearCrossEntropyFunction",
        _LINEAR,
        lambda f, x, w: f(x, w, LABELS)[0],
        lambda x, w: F.cross_entropy(x @ w.t(), LABELS),
    ),
    "fused_ce_tvd": Case(
        "fused_ce_tvd.LigerFusedCETVDFunction",
        (LOGITS,),
        lambda f, x: f(x, _teacher(x), LABELS),
        _ce_tvd,
    ),
    "kl_div": Case(
        "kl_div.LigerKLDivLossFunction",
        (LOGITS,),
        lambda f, x: f(x.log_softmax(-1), _teacher(x).softmax(-1), "batchmean", False),
        lambda x: F.kl_div(x.log_softmax(-1), _teacher(x).softmax(-1), reduction="batchmean"),
        dtypes=SINGLE,
    ),
    "fused_linear_kl_div": Case(
        "fused_linear_kl_div.LigerFusedLinearKLDivFunction",
        _LINEAR,
        lambda f, x, w: f(x, w, (2 * x.detach() @ w.detach().t()).softmax(-1)),
        lambda x, w: F.kl_div(
            (x @ w.t()).log_softmax(-1),
            (2 * x.detach() @ w.detach().t()).softmax(-1),
            reduction="batchmean",
        ),
        dtypes=SINGLE,
    ),
    "jsd": Case(
        "jsd.LigerJSDFunction",
        (LOGITS,),
        lambda f, x: f(x.log_softmax(-1), _teacher(x).log_softmax(-1)),
        lambda x: _jsd(x.log_softmax(-1), _teacher(x).log_softmax(-1)),
        dtypes=SINGLE,
    ),
    "fused_linear_jsd": Case(
        "fused_linear_jsd.LigerFusedLinearJSDFunction",
        _LINEAR,
        lambda f, x, w: f(x, w, 2 * x.detach(), w.detach()),
        lambda x, w: _jsd(
            (x @ w.t()).log_softmax(-1), (2 * x.detach() @ w.detach().t()).log_softmax(-1)
        ),
        dtypes=SINGLE,
    ),
    "tvd": Case(
        "tvd.LigerTVDLossFunction",
        (LOGITS,),
        lambda f, x: f(x.softmax(-1), _teacher(x).softmax(-1)),
        lambda x: 0.5 * (x.softmax(-1) - _teacher(x).softmax(-1)).abs().sum(-1).mean(),
        dtypes=SINGLE,
    ),
    "grpo_loss": Case(
        "grpo_loss.GrpoLossFunction", ((_BATCH, _LENGTH + 1, VOCABULARY),), _our_grpo, _grpo
    ),
}
