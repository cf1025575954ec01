"""Random numbers are drawn in the order of eager, once, and with the same bits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.checkpoint import checkpoint

from capture.jobs import Step, adamw, capture_job, custom, job, refused
from capture.steps import assert_exact


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_with_dropout_draws_one_mask(reentrant: bool) -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(model, x.clone().requires_grad_(), use_reentrant=reentrant)

    captured = assert_exact(lambda: job(adamw, forward=forward))
    names = [op.name for op in captured.program.main.ops]
    assert names.count("aten.bernoulli.p") == 1


def test_reentrant_checkpoint_without_a_gradient_has_none() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            return checkpoint(model, x, use_reentrant=True)

        return step

    captured = capture_job(custom(body))
    assert {op.site.phase for op in captured.program.main.ops} == {"forward"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_of_any_layout_and_dtype(dtype: torch.dtype) -> None:
    """The backward of dropout rounds 1 / (1 - p) to bfloat16 as the CPU does."""

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            opt.zero_grad()
            hidden = F.dropout(model[0](x).to(dtype).t(), 0.3)  # type: ignore[index]
            loss = F.dropout(hidden, 0.1).float().square().sum()
            loss.backward()
            opt.step()
            return loss.detach(), torch.randn(3) + torch.rand(3)

        return step

    assert_exact(lambda: custom(body))


def test_unused_random_numbers_are_drawn() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            torch.randn(7)
            torch.empty(20).uniform_()
            return torch.rand(4)

        return step

    assert_exact(lambda: custom(body))


def test_dropout_with_its_default_probability() -> None:
    assert_exact(lambda: custom(lambda m, o: lambda x, y: F.dropout(x)))


def test_random_op_that_writes_its_noise() -> None:
    assert_exact(lambda: custom(lambda m, o: lambda x, y: F.rrelu(m(x), training=True).detach()))


def test_seeding_inside_the_step_is_refused() -> None:
    refused(custom(lambda m, o: lambda x, y: torch.manual_seed(0)), "state of the random generator")


def test_own_generator_is_refused() -> None:
    generator = torch.Generator()
    made = custom(lambda model, opt: lambda x, y: torch.rand(3, generator=generator))
    refused(made, "generator")
