"""Three steps of common models, laid out over chips, are those of one chip.

In float64 where the model's ops know it: some gradients are zero but for rounding (that of a key's
bias), and Adam blows rounding up to the size of a step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from emulate import run_plan, run_program
from supernode.capture import capture
from supernode.errors import LayoutError
from supernode.ir import Program
from supernode.partition import partition
from zoo import CNNS, ZOO, zoo_step

LAYOUTS = ("dp=2", "fsdp=2", "tp=2", "fsdp=2,tp=2", "micro=2")
STEPS = 3

# Grouped matrix products know float32 only.
SINGLE = ("mixtral", "qwen3-moe", "deepseek-v3")
NOT_CAPTURED = ("qwen2.5-vl",)


def three(
    run: Callable[[Sequence[Any]], list[Any]], program: Program, inputs: list[Any]
) -> list[Any]:
    """What the last of three steps gives, each from what the one before left."""
    values, outputs = list(inputs), list[Any]()
    for _ in range(STEPS):
        outputs = run(values)
        for output, source in zip(outputs, program.updates, strict=True):
            if source is not None:
                values[source] = output
    return outputs


def test_a_model_of_convolutions_alone_has_nothing_for_tp():
    made = zoo_step("unet")
    program = capture(made.step, made.model, made.optimizer, made.args).program
    with pytest.raises(LayoutError, match="tp=2 splits nothing"):
        partition(program, "tp=2")


def check(name: str, layout: str) -> None:
    made = zoo_step(name, torch.float32 if name in SINGLE else torch.float64)
    captured = capture(made.step, made.model, made.optimizer, made.args)
    program = captured.program
    known = captured.inputs() | captured.host_values() | captured.bind(*made.args)
    inputs = [known[port.name] for port in program.inputs]
    plan = partition(program, layout)
    want = three(lambda values: run_program(program, values), program, inputs)
    got = three(lambda values: run_plan(plan, values), program, inputs)
    for port, one, many in zip(program.outputs, want, got, strict=True):
        if isinstance(one, Tensor):
            assert _near(many, one), port.name


def _near(got: Tensor, want: Tensor) -> bool:
    """To a thousandth of the typical element, and to a tenth of a millionth where all are tiny."""
    if not want.is_floating_point():
        return torch.equal(got, want)
    scale = float(want.double().square().mean().sqrt()) if want.numel() else 0.0
    return bool(((got - want).abs() <= 1e-3 * scale + 1e-7).all())


@pytest.mark.parametrize("name", CNNS)
def test_vision_models_over_the_batch(name: str):
    check(name, "dp=2")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in ZOO if name not in NOT_CAPTURED])
def test_models_of_the_zoo(name: str, layout: str):
    if name == "unet" and "tp" in layout:
        pytest.skip("no weight matrix")
    pytest.importorskip("transformers")
    check(name, layout)
