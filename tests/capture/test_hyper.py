"""Hyper-parameters and schedulers: followed, or a change is noticed; never silently baked in."""

import pytest
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from capture.jobs import Step, adamw, capture_job, custom, job, refused
from capture.steps import Job, assert_exact
from supernode.errors import CaptureError


def test_scheduler_that_moves_betas_is_followed() -> None:
    made = assert_exact(
        lambda: job(adamw, scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20))
    )
    names = {port.name for port in made.program.inputs if port.role == "host"}
    assert "optimizer.groups[0].betas[0]" in names


def test_change_of_a_fixed_hyper_parameter_is_noticed() -> None:
    made = job(adamw)
    captured = capture_job(made)
    captured.host_values()
    made.optimizers[0].param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(CaptureError, match=r"optimizer\.groups\[0\]\.weight_decay changed"):
        captured.host_values()


def test_learning_rate_changed_between_steps_is_followed() -> None:
    def make() -> Job:
        made = job(adamw)

        def halve() -> None:
            made.optimizers[0].param_groups[0]["lr"] *= 0.5

        made.between = halve
        return made

    assert_exact(make)


def test_branch_on_a_hyper_parameter_is_guarded() -> None:
    made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9))
    captured = capture_job(made)
    assert captured.host_values()["optimizer.groups[0].momentum"] == 0.9
    made.optimizers[0].param_groups[0]["momentum"] = 0.0
    with pytest.raises(CaptureError, match="branches on a hyper-parameter"):
        captured.host_values()


def test_hyper_parameter_set_inside_the_step_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            F.cross_entropy(model(x), y).backward()
            opt.param_groups[0]["lr"] = 0.5
            opt.step()
            opt.zero_grad()

        return step

    refused(custom(body), r"sets optimizer\.groups\[0\]\.lr", line=False)


def test_scheduler_before_optimizer_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.StepLR(opt, 1)

        def step(x: Tensor, y: Tensor) -> None:
            F.cross_entropy(model(x), y).backward()
            scheduler.step()
            opt.step()
            opt.zero_grad()

        return step

    refused(custom(body), "after its scheduler was stepped")


def test_plateau_scheduler_and_last_lr_are_refused() -> None:
    def plateau(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.ReduceLROnPlateau(opt)
        return lambda x, y: scheduler.step(F.cross_entropy(model(x), y))

    def last_lr(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.StepLR(opt, 1)
        return lambda x, y: scheduler.get_last_lr()

    refused(custom(plateau), "ReduceLROnPlateau")
    refused(custom(last_lr), "get_last_lr")


def test_train_mode_and_frozen_parameters_are_watched() -> None:
    made = job(adamw)
    captured = capture_job(made)
    made.model.eval()
    made.model[0].bias.requires_grad_(False)  # type: ignore[index]
    with pytest.raises(CaptureError, match=r"model\.training, 0\.bias\.requires_grad changed"):
        captured.host_values()


def test_a_module_that_changes_its_mode_is_noticed() -> None:
    made = job(adamw)
    captured = capture_job(made)
    made.model[2].eval()  # type: ignore[index]
    with pytest.raises(CaptureError, match=r"model\.2\.training changed since the capture"):
        captured.host_values()
