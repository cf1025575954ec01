"""Each idiom of a train step is captured bit for bit, or refused with the user's line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from capture.steps import Job, assert_exact
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

import torch.optim as optim

from supernode.capture import capture
from supernode.errors import CaptureError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 16, generator=generator)
    return x, torch.randint(0, 4, (8,), generator=generator)


def job(
    optimizer: Callable[[nn.Module], optim.Optimizer],
    *,
    zero_first: bool = True,
    zero_last: bool = False,
    set_to_none: bool = True,
    after_backward: Callable[[nn.Module], Any] = lambda model: None,
    forward: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x),
    scheduler: Callable[[optim.Optimizer], Any] | None = None,
    parts: int = 1,
    autocast: bool = False,
) -> Job:
    model = network()
    opt = optimizer(model)
    stepped = [scheduler(opt)] if scheduler else []

    def step(x: Tensor, y: Tensor) -> Tensor:
        if zero_first:
            opt.zero_grad(set_to_none=set_to_none)
        total = torch.tensor(0.0)
        for x_part, y_part in zip(x.chunk(parts), y.chunk(parts), strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = F.cross_entropy(forward(model, x_part), y_part) / parts
            loss.backward()
            total = total + loss.detach()
        after_backward(model)
        opt.step()
        for each in stepped:
            each.step()
        if zero_last:
            opt.zero_grad(set_to_none=set_to_none)
        return total

    return Job(model=model, optimizers=[opt], step=step, args=data())


def adamw(model: nn.Module) -> optim.Optimizer:
    return optim.AdamW(model.parameters(), lr=1e-2)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.dim() > 1]


def vectors(model: nn.Module) -> list[nn.Parameter]:
    return [param for param in model.parameters() if param.dim() <= 1]


OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "AdamW": adamw,
    "Adam amsgrad": lambda m: optim.Adam(m.parameters(), lr=1e-2, amsgrad=True),
    "Adam maximize": lambda m: optim.Adam(m.parameters(), maximize=True, weight_decay=0.1),
    "SGD": lambda m: optim.SGD(m.parameters(), lr=0.1),
    "SGD momentum": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda m: optim.RMSprop(m.parameters()),
    "RMSprop momentum": lambda m: optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "Adagrad": lambda m: optim.Adagrad(m.parameters(), initial_accumulator_value=0.1),
    "Adadelta": lambda m: optim.Adadelta(m.parameters()),
    "NAdam": lambda m: optim.NAdam(m.parameters()),
    "Adamax": lambda m: optim.Adamax(m.parameters()),
    "Rprop": lambda m: optim.Rprop(m.parameters()),
    "Muon": lambda m: optim.Muon(matrices(m), lr=1e-2),
    "AdamW foreach": lambda m: optim.AdamW(m.parameters(), foreach=True),
    "AdamW two groups": lambda m: optim.AdamW(
        [
            {"params": matrices(m)},
            {"params": vectors(m), "weight_decay": 0.0, "lr": 3e-3, "betas": (0.8, 0.99)},
        ],
        lr=1e-2,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    assert_exact(lambda: job(OPTIMIZERS[name]))


IDIOMS: dict[str, dict[str, Any]] = {
    "zero_grad last": {"zero_first": False, "zero_last": True},
    "zero_grad to zeros": {"set_to_none": False},
    "zero_grad to zeros, last": {"zero_first": False, "zero_last": True, "set_to_none": False},
    "no zero_grad": {"zero_first": False},
    "clip_grad_norm": {"after_backward": lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1)},
    "clip foreach": {
        "after_backward": lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1, foreach=True)
    },
    "clip_grad_value": {
        "after_backward": lambda m: nn.utils.clip_grad_value_(m.parameters(), 0.01)
    },
    "autocast": {"autocast": True},
    "accumulation": {"parts": 4},
    "checkpoint": {"forward": lambda m, x: checkpoint(m, x, use_reentrant=False)},
    "reentrant checkpoint": {
        "forward": lambda m, x: m[1:](checkpoint(m[0], x.clone().requires_grad_(), use_reentrant=True))
    },
    "LinearLR": {"scheduler": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=10)},
    "OneCycleLR": {"scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20)},
    "CosineAnnealingWarmRestarts": {
        "scheduler": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2)
    },
}


@pytest.mark.parametrize("name", IDIOMS)
def test_idiom(name: str) -> None:
    assert_exact(lambda: job(adamw, **IDIOMS[name]))
