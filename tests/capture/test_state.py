"""Optimizer state and gradients that outlive a step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import StepLR

from capture.jobs import Step, adamw, capture_job, custom, data, job, network, refused
from capture.steps import Job, assert_exact
from supernode.capture.optimizer_state import learn
from supernode.capture.subject import subject_of


def test_state_that_starts_from_ones() -> None:
    captured = assert_exact(lambda: job(lambda m: optim.NAdam(m.parameters())))
    assert "optimizer.mu_product[0.weight]" in {port.name for port in captured.program.inputs}
    fresh = capture_job(job(lambda m: optim.NAdam(m.parameters())))
    assert fresh.inputs()["optimizer.mu_product[0.weight]"] == 1.0
    assert fresh.inputs()["optimizer.step[0.weight]"] == 0.0


def test_capture_in_the_middle_of_training() -> None:
    def make() -> Job:
        made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.5))
        made.step(*made.args)
        return made

    assert_exact(make)


def test_state_that_starts_from_the_first_gradient_is_refused() -> None:
    made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.5))
    refused(made, "from the first gradient", line=False)


BRANCHING: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "RAdam": lambda m: optim.RAdam(m.parameters(), lr=1e-2),
    "RAdam decoupled": lambda m: optim.RAdam(
        m.parameters(), weight_decay=0.1, decoupled_weight_decay=True
    ),
    "RAdam short": lambda m: optim.RAdam(m.parameters(), betas=(0.9, 0.5)),
    "ASGD": lambda m: optim.ASGD(m.parameters(), lr=1e-2, t0=4),
    "ASGD decay": lambda m: optim.ASGD(m.parameters(), weight_decay=0.1),
    "Adafactor": lambda m: optim.Adafactor(m.parameters()),
    "Adafactor fast": lambda m: optim.Adafactor(m.parameters(), lr=0.5, d=2.0),
}


@pytest.mark.parametrize("name", BRANCHING)
def test_optimizers_that_branch_on_the_step_count(name: str) -> None:
    """RAdam goes another way from its sixth step, ASGD averages from `t0`."""
    assert_exact(lambda: job(BRANCHING[name]), steps=10)
    assert_exact(lambda: job(BRANCHING[name], scheduler=lambda o: StepLR(o, 2)), steps=4)


def test_lbfgs_is_refused() -> None:
    refused(job(lambda m: optim.LBFGS(m.parameters())), "LBFGS", line=False)


class Counting(optim.Optimizer):
    """Keeps its step count as a Python number."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for param in self.param_groups[0]["params"]:
            state = self.state[param]
            state["step"] = state.get("step", 0) + 1
            param -= self.param_groups[0]["lr"] / state["step"] * param.grad


def test_state_in_python_numbers_is_refused() -> None:
    refused(job(lambda m: Counting(m.parameters())), "keeps a Python number", line=False)


def test_parameter_outside_of_the_model_is_refused() -> None:
    other = nn.Linear(4, 4)
    refused(job(lambda m: optim.SGD(other.parameters())), "not part of the model", line=False)

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        return lambda x, y: other(model(x)).sum().backward()

    refused(custom(body), "neither a parameter of the model nor an argument")


def test_gradients_kept_from_a_step_before() -> None:
    captured = assert_exact(lambda: job(adamw, zero_first=False))
    assert "grad[0.weight]" in {port.name for port in captured.program.inputs}


def test_gradients_present_at_capture() -> None:
    def make() -> Job:
        made = job(adamw)
        made.step(*made.args)
        assert made.model[0].weight.grad is not None  # type: ignore[index]
        return made

    captured = assert_exact(make)
    assert "grad[0.weight]" not in {port.name for port in captured.program.inputs}


def test_gradients_added_once_only_are_refused() -> None:
    made = job(adamw, zero_first=False, zero_last=True)
    F.cross_entropy(made.model(made.args[0]), made.args[1]).backward()
    refused(made, "added to in one step and not in the next", line=False)


def test_gradients_that_a_step_does_not_touch() -> None:
    def make() -> Job:
        model = network().eval()
        model(data()[0]).sum().backward()

        def step(x: Tensor) -> Tensor:
            return model(x).detach()

        return Job(model=model, optimizers=[], step=step, args=data()[:1])

    captured = assert_exact(make)
    assert not any(port.role == "state" for port in captured.program.inputs)


def test_step_of_an_optimizer_alone() -> None:
    def make() -> Job:
        made = job(adamw)
        F.cross_entropy(made.model(made.args[0]), made.args[1]).backward()
        return Job(
            model=made.model,
            optimizers=made.optimizers,
            step=lambda: made.optimizers[0].step(),
            args=(),
        )

    captured = assert_exact(make)
    assert "grad[0.weight]" in {port.name for port in captured.program.inputs}


class FirstOnly(optim.SGD):
    """Gives momentum to its first parameter alone, unlike torch's own."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        first, *others = self.param_groups[0]["params"]
        for param in (first, *others):
            param -= self.param_groups[0]["lr"] * param.grad
        seen = self.state[first].setdefault("seen", torch.zeros_like(first))
        seen += first.grad


class Alike(nn.Module):
    """Four layers of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("make", [optim.Adam, FirstOnly])
def test_like_parameters_have_the_state_that_a_step_gives_each(
    make: Callable[..., optim.Optimizer],
) -> None:
    """Torch's own optimizers are asked for one parameter of a kind, others for each."""
    model = Alike()
    opt = make(model.parameters(), lr=0.1)
    found = {(e.param, e.key): e.like.shape for e in learn(subject_of(model, opt)).entries}
    assert not opt.state
    model(torch.ones(1, 4)).sum().backward()
    opt.step()
    want = {
        (name, key): value.shape
        for name, param in model.named_parameters()
        for key, value in opt.state.get(param, {}).items()
    }
    assert found == want
    assert len(found) == (1 if make is FirstOnly else 24)
