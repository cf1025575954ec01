"""Every refusal says where, at the least the line the step is defined on."""

import pytest
import torch
from torch import nn

from supernode.capture import capture
from supernode.errors import CaptureError


def test_a_refusal_without_a_line_of_its_own_names_the_step() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.LBFGS(model.parameters())

    def step(x: torch.Tensor) -> torch.Tensor:
        return model(x).sum()

    with pytest.raises(CaptureError) as caught:
        capture(step, model, optimizer, (torch.ones(2, 4),))
    assert caught.value.where == f"{__file__}:{step.__code__.co_firstlineno}"


def test_what_is_found_after_the_step_names_the_step_not_the_call() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = model(x).sum()
        model.weight.data = torch.zeros(4, 4)
        return loss

    with pytest.raises(CaptureError, match="was replaced") as caught:
        capture(step, model, optimizer, (torch.ones(2, 4),))
    assert caught.value.where == f"{__file__}:{step.__code__.co_firstlineno}"


def test_a_dtype_that_a_program_does_not_know() -> None:
    def step(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.uint16)

    with pytest.raises(CaptureError, match="dtype uint16") as caught:
        capture(step, None, None, (torch.ones(2, 4),))
    assert caught.value.where == f"{__file__}:{step.__code__.co_firstlineno + 1}"
