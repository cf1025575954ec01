"""Small train steps, whole and in variants, and the assertion that one is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from capture.steps import Job, same, snapshot
from supernode.capture import capture
from supernode.errors import CaptureError

Step = Callable[[Tensor, Tensor], Any]


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


def capture_job(made: Job) -> Any:
    return capture(made.step, made.model, made.optimizers, made.args)


def custom(
    body: Callable[[nn.Module, optim.Optimizer], Step], model: Callable[[], nn.Module] = network
) -> Job:
    built = model()
    opt = adamw(built)
    return Job(model=built, optimizers=[opt], step=body(built, opt), args=data())


def refused(made: Job, text: str, *, line: bool = True) -> CaptureError:
    before = snapshot(made)
    with pytest.raises(CaptureError, match=text) as caught:
        capture_job(made)
    assert same(before, snapshot(made)), "a refused capture changed something of the user"
    assert not line or "tests/capture/" in caught.value.where
    return caught.value
