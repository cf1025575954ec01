"""The optimizers that people train with, over a small model with a plain train step each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from capture.steps import Job


class Lion(Optimizer):
    """The sign of a blend of momentum and gradient.

    **Source:** Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, program 1.
    """

    def __init__(self, params: list[nn.Parameter], lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                update = momentum.lerp(parameter.grad, 0.1).sign_()
                parameter.add_(update, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 0.01)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.dim() == 2]


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda m: optim.Adam(m.parameters(), amsgrad=True),
    "AdamW": lambda m: optim.AdamW(m.parameters()),
    "Adagrad": lambda m: optim.Adagrad(m.parameters(), weight_decay=0.1),
    "RMSprop": lambda m: optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "Adafactor": lambda m: optim.Adafactor(m.parameters()),
    "NAdam": lambda m: optim.NAdam(m.parameters()),
    "RAdam": lambda m: optim.RAdam(m.parameters()),
    "Adamax": lambda m: optim.Adamax(m.parameters()),
    "Adadelta": lambda m: optim.Adadelta(m.parameters()),
    "ASGD": lambda m: optim.ASGD(m.parameters()),
    "Rprop": lambda m: optim.Rprop(m.parameters()),
    "Muon": lambda m: optim.Muon(matrices(m)),
    "Lion": lambda m: Lion(list(m.parameters())),
}


def optimizer_step(name: str, dtype: torch.dtype = torch.float32) -> Job:
    """Two linear layers, gradients clipped by their norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)).to(dtype)
    optimizer = OPTIMIZERS[name](model)

    def step(x: Tensor) -> Tensor:
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return Job(model=model, optimizers=[optimizer], step=step, args=(x,))
