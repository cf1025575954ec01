"""What a step checks about its data is computed in every run, and one that fails is raised."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from capture.jobs import Step, capture_job, custom, refused
from capture.steps import assert_exact, run_once
from emulate import run_plan
from supernode.errors import CheckFailed
from supernode.partition import partition


def checking(model: nn.Module, opt: optim.Optimizer) -> Step:
    def step(x: Tensor, y: Tensor) -> Any:
        torch._check_tensor_all(y < 4, lambda: f"{y} holds labels beyond {x.shape[1]}")
        torch._assert_async((x.abs() < 100).all(), "an input is too large")
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    return step


def test_checks_that_hold_change_nothing() -> None:
    program = assert_exact(lambda: custom(checking)).program
    names = [port.name for port in program.outputs if port.role == "result"]
    assert names == ["result", "check[0]", "check[1]"]


@pytest.mark.parametrize("layout", ["", "dp=2", "micro=2"])
def test_a_check_of_one_shard_fails_in_every_layout(layout: str) -> None:
    made = custom(checking)
    captured = capture_job(made)
    plan = partition(captured.program, layout)
    x, y = made.args

    def run(*args: Tensor) -> Any:
        known = captured.inputs() | captured.host_values() | captured.bind(*args)
        values = [known[port.name] for port in captured.program.inputs]
        return captured.result(run_plan(plan, values))

    assert torch.isfinite(run(x, y))
    large = x.clone()
    large[-1, 0] = -100
    with pytest.raises(CheckFailed, match="an input is too large") as caught:
        run(large, y)
    assert "test_checks.py" in caught.value.where


def test_the_message_shows_what_is_known_at_capture() -> None:
    step = lambda x, y: torch._check_tensor_all(y < 4, lambda: f"{y} of {x.shape[1]}")  # noqa: E731
    made = custom(lambda model, opt: step)
    captured = capture_job(made)
    x, y = made.args
    run_once(captured, x, y)
    with pytest.raises(CheckFailed, match=r"does not hold: \? of 16\n"):
        run_once(captured, x, y + 4)


def test_the_number_of_a_tensor_is_no_part_of_a_message() -> None:
    step = lambda x, y: torch._check((y < 4).all().item(), lambda: f"{x.sum().item()}")  # noqa: E731
    captured = capture_job(custom(lambda model, opt: step))
    x, y = custom(lambda model, opt: step).args
    with pytest.raises(CheckFailed, match="it says nothing"):
        run_once(captured, x, y + 4)


def test_a_check_on_constants_is_made_at_capture() -> None:
    step = lambda x, y: torch._check((torch.arange(3) < 2).all().item())  # noqa: E731
    with pytest.raises(RuntimeError, match="Expected cond to be True"):
        capture_job(custom(lambda model, opt: step))


def test_a_comparison_of_a_number_is_refused() -> None:
    refused(custom(lambda m, o: lambda x, y: torch._check(x.sum().item() > 0)), "depends on data")
