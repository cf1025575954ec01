"""An update that a branch on data skips is a choice of the run, in all that it writes."""

import logging
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from capture.jobs import Step, adamw, capture_job, custom, network, refused
from capture.steps import Job, assert_exact

LOG = logging.getLogger(__name__)
Decide = Callable[[Tensor, optim.Optimizer], None]


def finite(norm: Tensor, opt: optim.Optimizer) -> None:
    if norm.isfinite():
        opt.step()


def reported(norm: Tensor, opt: optim.Optimizer) -> None:
    if not torch.isfinite(norm):
        LOG.warning("skipped")
        print("skipped")
    else:
        opt.step()


def many(norm: Tensor, opt: optim.Optimizer) -> None:
    if norm < 100 and (opt is not None) and not norm.isnan().any():
        opt.step()


def by_key(norm: Tensor, opt: optim.Optimizer) -> None:
    opts = {"main": [opt]}
    for _ in range(2):
        if norm.isfinite():
            opts["main"][0].step()


def never(norm: Tensor, opt: optim.Optimizer) -> None:
    """The test has an end that no data decides; the step that follows is no part of it."""
    if norm.isfinite() and opt is None:
        opt.step()
    opt.step()


def job(decide: Decide, optimizer: Callable[[nn.Module], optim.Optimizer] = adamw) -> Job:
    model = network()
    model.register_buffer("count", torch.zeros(()))
    opt = optimizer(model)
    scheduler = lr_scheduler.StepLR(opt, 2)

    def step(x: Tensor, y: Tensor) -> Tensor:
        # Every second step has gradients that are not finite.
        count: Tensor = model.count  # type: ignore[assignment]
        count += 1
        scale = torch.where(count % 2 == 0, torch.inf, 1.0)
        loss = F.cross_entropy(model(x), y)
        (loss * scale).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        decide(norm, opt)
        opt.zero_grad()
        scheduler.step()
        return loss.detach()

    return Job(model=model, optimizers=[opt], step=step, args=(X, Y))


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 4, (8,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("decide", [finite, reported, many, by_key])
def test_updates_are_skipped(decide: Decide) -> None:
    made = assert_exact(lambda: job(decide), 5)
    ops = [op.name for block in made.program.all_blocks() for op in block.ops]
    assert ops.count("aten.where.self") > 1


def test_a_step_outside_of_the_branch_is_taken() -> None:
    def momentum(model: nn.Module) -> optim.Optimizer:
        return optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def alone(norm: Tensor, opt: optim.Optimizer) -> None:
        opt.step()

    programs = [capture_job(job(each, momentum)).program for each in (never, alone)]
    assert [len(each.main.ops) for each in programs] == [len(programs[0].main.ops)] * 2


@pytest.mark.parametrize("hook", ["gradients", "tensors"])
def test_what_can_not_be_picked_is_refused(hook: str) -> None:
    kept: list[Tensor] = []

    def after(opt: optim.Optimizer, args: object, kwargs: object) -> None:
        for group in opt.param_groups:
            if hook == "gradients":
                group["params"][0].grad = None
            else:
                kept.append(group["params"][0] * 2)

    made = job(finite)
    made.optimizers[0].register_step_post_hook(after)
    refused(made, "sets or clears" if hook == "gradients" else "leaves a tensor")


def test_a_branch_that_does_more_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if loss.isfinite():
                loss = loss * 2
                opt.step()
            return loss.detach()

        return step

    refused(custom(body), "a branch .* depends on data")
