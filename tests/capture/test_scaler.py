"""Scalers of the loss: a step with an overflow is skipped, the scale backs off and grows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.amp.grad_scaler import GradScaler

from capture.jobs import Step, adamw, capture_job, custom, data, network, refused
from capture.steps import Job, assert_exact, run_captured, same
from supernode.errors import CaptureError

Optimizers = Callable[[nn.Module], list[optim.Optimizer]]
STEPS = 8


class Replacing(optim.Optimizer):
    """Puts a new tensor into its state in each step, as optimizers of others do."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})
        for param in self.param_groups[0]["params"]:
            self.state[param]["mean"] = torch.zeros_like(param)

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for param in (p for group in self.param_groups for p in group["params"]):
                self.state[param]["mean"] = self.state[param]["mean"] * 0.9 + param.grad
                param -= 0.1 * self.state[param]["mean"].sign()


def two(model: nn.Module) -> list[optim.Optimizer]:
    first, second, third, fourth = model.parameters()
    return [
        optim.Adam([first, second], lr=1e-2),
        optim.SGD([third, fourth], lr=0.1, momentum=0.9),
    ]


OPTIMIZERS: dict[str, Optimizers] = {
    "adamw": lambda m: [adamw(m)],
    "momentum": lambda m: [optim.SGD(m.parameters(), lr=0.1, momentum=0.9)],
    "radam": lambda m: [optim.RAdam(m.parameters(), lr=1e-2)],
    "adafactor": lambda m: [optim.Adafactor(m.parameters(), lr=1e-2)],
    "replacing": lambda m: [Replacing(m.parameters())],
    "two": two,
}


def scaled(optimizers: Optimizers, scaler: GradScaler, *, clip: bool = False) -> Job:
    """Trains in float16, of which gradients overflow at first: the scale is far too large."""
    model = network()
    opts = optimizers(model)

    def step(x: Tensor, y: Tensor) -> dict[str, Any]:
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        for opt in opts:
            if clip:
                scaler.unscale_(opt)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(opt)
        before = scaler.get_scale()
        scaler.update()
        for opt in opts:
            opt.zero_grad()
        return {"loss": loss.detach(), "before": before, "after": scaler.get_scale()}

    return Job(model=model, optimizers=opts, step=step, args=data())


def of_scale(scale: float = 2.0**18, **settings: Any) -> GradScaler:
    return GradScaler("cpu", init_scale=scale, growth_interval=2, **settings)


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("adamw", True),
        ("momentum", False),
        ("radam", False),
        ("adafactor", True),
        ("replacing", True),
        ("two", False),
    ],
)
def test_steps_in_float16_with_overflows(name: str, clip: bool) -> None:
    made: list[GradScaler] = []

    def make() -> Job:
        made.append(of_scale(growth_factor=1.9, backoff_factor=0.3))
        return scaled(OPTIMIZERS[name], made[-1], clip=clip)

    captured = assert_exact(make, STEPS)
    ours, plain = made
    assert ours.state_dict() == plain.state_dict()
    names = {port.name for port in captured.program.inputs}
    assert {"scaler.scale", "scaler.growth_tracker"} <= names


def test_a_skipped_step_leaves_all_as_it_was() -> None:
    """Of five steps the first three overflow; after two that do not, the scale has grown."""
    torch.manual_seed(0)
    scaler = of_scale(2.0**20)
    made = scaled(OPTIMIZERS["adamw"], scaler)
    captured = capture_job(made)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    first = run_captured(captured, made.args, 3, made.between)
    assert [each["after"] for each in first] == [2.0**19, 2.0**18, 2.0**17]
    assert all(torch.equal(before[name], p) for name, p in made.model.named_parameters())
    (state, *_) = made.optimizers[0].state.values()
    assert state["step"] == 0
    assert not state["exp_avg"].any()
    assert scaler.state_dict()["scale"] == 2.0**17
    rest = run_captured(captured, made.args, 2, made.between)
    assert [each["after"] for each in rest] == [2.0**17, 2.0**18]
    assert state["step"] == 2


def test_the_scaler_is_the_users_after_capture() -> None:
    scaler = of_scale()
    made = scaled(OPTIMIZERS["adamw"], scaler)
    before = scaler.state_dict()
    captured = capture_job(made)
    assert scaler.state_dict() == before
    assert scaler._scale is None
    made.step(*made.args)
    assert captured.present()["scaler.scale"] == before["scale"] / 2
    scaler.set_growth_interval(5)
    with pytest.raises(CaptureError, match=r"scaler\.growth_interval changed"):
        captured.host_values()


def _adamw(fused: bool) -> Optimizers:
    return lambda model: [optim.AdamW(model.parameters(), lr=1e-2, fused=fused)]


def test_fused_optimizers_are_scaled_as_any_other() -> None:
    """Recorded with the plain loop, from which PyTorch's kernel differs in the last bits."""
    runs = [of_scale(), of_scale()]
    jobs = [scaled(_adamw(fused), runs[not fused]) for fused in (True, False)]
    jobs[1].model.load_state_dict(jobs[0].model.state_dict())
    for made in jobs:
        captured = capture_job(made)
        run_captured(captured, made.args, 6, made.between)
    assert runs[0].state_dict() == runs[1].state_dict()
    assert same(jobs[0].model.state_dict(), jobs[1].model.state_dict())
    assert jobs[0].optimizers[0]._step_supports_amp_scaling  # type: ignore[attr-defined]


def test_a_step_without_update_is_refused() -> None:
    scaler = of_scale()

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(opt)
            opt.zero_grad()

        return step

    refused(custom(body), r"ends before scaler\.update", line=False)
