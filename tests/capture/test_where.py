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
