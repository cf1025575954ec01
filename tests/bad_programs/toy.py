"""What the bad programs are made of: a small model, and the list of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

Case = tuple[Callable[..., Any], nn.Module | None, Any, tuple[Any, ...]]
PROGRAMS: dict[str, Callable[[bool], Case]] = {}


def bad(make: Callable[[bool], Case]) -> Callable[[bool], Case]:
    PROGRAMS[make.__name__] = make
    return make


class Toy:
    """Two layers, SGD with momentum and a batch of eight."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.optimizer: Any = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.args: tuple[Any, ...] = torch.ones(8, 16), torch.zeros(8, dtype=torch.int64)

    def update(self, loss: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def case(self, step: Callable[..., Any]) -> Case:
        return step, self.model, self.optimizer, self.args

    def forward(self, body: Callable[[Tensor, Tensor], Any]) -> Case:
        """A step that only computes."""
        return body, self.model, (), self.args

    def train(self, of: Callable[[Tensor, Tensor], Tensor]) -> Case:
        """A train step on the loss that `of` gives."""

        def step(x: Tensor, y: Tensor) -> Tensor:
            return self.update(of(x, y))

        return self.case(step)
