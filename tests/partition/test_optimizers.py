"""Eight steps of every optimizer, on several chips, are those of plain PyTorch on one.

Eight, because RAdam and ASGD go another way after some. In float64: Adam and its like blow rounding
up to the size of a step.
"""

from typing import Any

import pytest
import torch

from emulate import run_plan
from optimizers import OPTIMIZERS, optimizer_step
from supernode.capture import capture
from supernode.partition import partition

STEPS = 8


@pytest.mark.parametrize("line", ["dp=2", "fsdp=2", "tp=2"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_on_two_chips(name: str, line: str) -> None:
    made, plain = (optimizer_step(name, torch.float64) for _ in range(2))
    start = {key: weight.clone() for key, weight in plain.model.state_dict().items()}
    captured = capture(made.step, made.model, made.optimizers, made.args)
    program = captured.program
    plan = partition(program, line)
    values: dict[str, Any] = captured.inputs() | captured.host_values()
    values |= captured.bind(*made.args)
    for _ in range(STEPS):
        outputs = run_plan(plan, [values[port.name] for port in program.inputs])
        for port, output, source in zip(program.outputs, outputs, program.updates, strict=True):
            if source is not None:
                values[port.name] = output
        plain.step(*plain.args)
    for key, weight in plain.model.state_dict().items():
        moved = (weight - start[key]).abs().max()
        # Muon multiplies in bfloat16, whatever the weights are.
        slack = 0.02 * moved if name == "Muon" else 1e-9
        assert (values[key] - weight).abs().max() <= slack
        assert moved > 0 or (name == "Muon" and weight.dim() == 1)
