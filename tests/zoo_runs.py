"""Three steps of a model of the zoo, in plain PyTorch and by plans of its captured Program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernode.capture import Captured, capture
from supernode.plan import Plan
from supernode.run import Node
from zoo import ZooStep

STEPS = 3
SINGLE = ("mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss")
"""Their grouped matrix products know no float64."""
NO_TP = {"unet": "tp=2 splits nothing"}
"""What `tp=2` is refused with: convolutions only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """What the steps leave: the loss of each, and parameters, buffers and state by port name."""

    losses: list[Tensor]
    state: dict[str, Tensor]


class Subject:
    """A step of the zoo with its Program, both to be run from the same start."""

    def __init__(self, made: ZooStep) -> None:
        self.made = made
        self.captured: Captured = capture(made.step, made.model, made.optimizer, made.args)
        self.start = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self.captured.inputs().items()
        }
        self._args = self.captured.bind(*made.args)

    def eager(self) -> After:
        """In plain PyTorch; once, since it trains the model."""
        losses = [self.made.step(*self.made.args).clone() for _ in range(STEPS)]
        return After(losses=losses, state=_tensors(self.captured.inputs()))

    def interpreted(self, run: Callable[[Sequence[Any]], list[Any]]) -> After:
        """By `run`, which gives the outputs of the Program for its inputs."""
        program = self.captured.program
        known = self.start | self._args
        values = [known[port.name] for port in program.inputs]
        losses: list[Tensor] = []
        for _ in range(STEPS):
            outputs = run(values)
            losses.append(self.captured.result(outputs))
            for output, source in zip(outputs, program.updates, strict=True):
                if source is not None:
                    values[source] = output
        named = {port.name: value for port, value in zip(program.inputs, values, strict=True)}
        return After(losses=losses, state=_tensors(named))

    def on_chips(self, node: Node, plan: Plan) -> After:
        """By the worker processes of `node`."""
        loaded = node.load(plan, self.start)
        losses = [self.captured.result(loaded.step(self._args)) for _ in range(STEPS)]
        return After(losses=losses, state=_tensors(loaded.pull()))


def _tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    return {name: v.detach().clone() for name, v in values.items() if isinstance(v, Tensor)}


def assert_near(got: After, want: After, layout: str) -> None:
    """Every loss and every piece of state, to the rounding of a few steps."""
    for one, other in zip(got.losses, want.losses, strict=True):
        assert near(one, other), f"{layout}: loss {one}, expected {other}"
    assert got.state.keys() == want.state.keys()
    for name, tensor in got.state.items():
        assert near(tensor, want.state[name]), f"{layout}: {name}"


def near(got: Tensor, want: Tensor) -> bool:
    """To a thousandth of the typical element, and to a tenth of a millionth where all are tiny."""
    if not want.is_floating_point():
        return torch.equal(got, want)
    scale = float(want.double().square().mean().sqrt()) if want.numel() else 0.0
    return bool(((got - want).abs() <= 1e-3 * scale + 1e-7).all())
