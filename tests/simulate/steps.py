"""What tests of the simulator capture: a layer, and a step that trains one on meta tensors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from supernode.capture import capture
from supernode.ir import Program


class Feedforward(nn.Module):
    """Two linear layers between residuals, as a layer of a transformer has them."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def trained(
    model: nn.Module, x: Tensor, loss_of: Callable[[Tensor], Tensor] = torch.mean
) -> Program:
    """A step of SGD without momentum, whose loss is `loss_of` what the model gives, in float32."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Tensor) -> Tensor:
        loss = loss_of(model(x).float())
        loss.backward()
        optimizer.step()
        return loss

    return capture(step, model, optimizer, (x,)).program
