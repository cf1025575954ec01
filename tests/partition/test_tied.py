"""A weight of two stages: it is sent once, its gradient once a step, and the result is the same."""

import pytest
import torch
from torch import Tensor

from emulate import run_plan, run_program
from supernode.capture import Captured, capture
from supernode.ir import SEND
from supernode.partition import partition
from supernode.plan import Plan
from tied import tied

LINES = (
    "pp=2,micro=4",
    "pp=2,micro=4,schedule=gpipe",
    "pp=2,vp=2,micro=4",
    "pp=4,micro=4,schedule=zb",
    "pp=2,dp=2,micro=2",
    "pp=2,tp=2,micro=4",
    "pp=2,fsdp=2,micro=2",
)


def captured(dtype: torch.dtype) -> tuple[Captured, tuple[Tensor, ...]]:
    made = tied(dtype)
    return capture(made.step, made.model, made.optimizer, made.args), made.args


@pytest.mark.parametrize("line", LINES)
def test_the_result_is_that_of_one_chip(line: str) -> None:
    found, args = captured(torch.float64)
    known = found.inputs() | found.host_values() | found.bind(*args)
    inputs = [known[port.name] for port in found.program.inputs]
    want = run_program(found.program, inputs)
    got = run_plan(partition(found.program, line), inputs)
    for port, one, many in zip(found.program.outputs, want, got, strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(many, one, rtol=1e-7, atol=1e-9, msg=port.name)


def messages(plan: Plan, source: int, shape: tuple[int, ...]) -> int:
    """How often a stage sends something of that shape."""
    ops = plan.stages()[source][1].main.ops
    return sum(op.name == SEND and op.inputs[0].tensor.shape == shape for op in ops)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb"])
def test_the_weight_and_its_gradient_cross_once(schedule: str) -> None:
    found, _ = captured(torch.float64)
    plan = partition(found.program, f"pp=2,micro=4,schedule={schedule}")
    assert messages(plan, 0, (64, 32)) == 1
    assert messages(plan, 1, (64, 32)) == 1


def test_in_pieces_where_chips_keep_pieces_of_it() -> None:
    """Each stage scatters its own sum over its chips."""
    found, _ = captured(torch.float64)
    plan = partition(found.program, "pp=2,fsdp=2,micro=2")
    assert messages(plan, 1, (64, 32)) == 0
    assert messages(plan, 1, (32, 32)) == 1


def test_sums_are_wide() -> None:
    """Of bfloat16 gradients the sum that crosses is in float32, as the running sums are."""
    found, _ = captured(torch.bfloat16)
    plan = partition(found.program, "pp=2,micro=4")
    ops = plan.stages()[1][1].main.ops
    sent = [op.inputs[0].tensor for op in ops if op.name == SEND]
    assert [type_.dtype for type_ in sent if type_.shape == (64, 32)] == ["float32"]
