"""Each op of the train steps of common models and optimizers has a row."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from ops.called import ops_called
from supernode.capture import capture
from supernode.errors import CaptureError
from supernode.ir import CALL, Program
from supernode.ops import table
from zoo import CNNS, ZOO, zoo_step


def without_a_row(program: Program) -> set[str]:
    names = {op.name for block in program.all_blocks() for op in block.ops}
    known = {*table(), CALL, "aten._local_scalar_dense"}
    return {name for name in names - known if not name.startswith("host.")}


def missing_in(name: str) -> set[str]:
    made = zoo_step(name)
    return without_a_row(capture(made.step, made.model, made.optimizer, made.args).program)


@pytest.mark.parametrize("name", CNNS)
def test_ops_of_our_vision_models(name: str):
    assert missing_in(name) == set()


# Its image sizes come as a tensor, which it reads as numbers while the step runs.
REFUSED = ("qwen2.5-vl",)


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("name", [name for name in ZOO if name not in (*CNNS, *REFUSED)])
def test_ops_of_models_of_transformers(name: str):
    pytest.importorskip("transformers")
    assert missing_in(name) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_reads_sizes_from_tensors_is_refused(name: str):
    pytest.importorskip("transformers")
    with pytest.raises(CaptureError, match="depends on data"):
        missing_in(name)


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


# These compare the number of the step, which they keep in a tensor, while they run.
COMPARES = ("ASGD", "Adafactor", "RAdam")


def optimizer_step(name: str) -> tuple[Any, ...]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    optimizer = OPTIMIZERS[name](model)

    def step(x: Tensor) -> Tensor:
        loss = model(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step, model, optimizer, (torch.ones(4, 8),)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - set(COMPARES)))
def test_ops_of_optimizers(name: str):
    assert without_a_row(capture(*optimizer_step(name)).program) == set()


@pytest.mark.parametrize("name", COMPARES)
def test_ops_of_optimizers_that_compare_the_number_of_the_step(name: str):
    step, _, _, args = made = optimizer_step(name)
    with pytest.raises(CaptureError, match="compared with another number"):
        capture(*made)
    assert ops_called(step, args) - set(table()) == set()
