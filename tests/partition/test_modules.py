"""Every module of torch.nn, forward and backward, over two chips is what plain PyTorch gives."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emulate import run_plan, run_program
from modules import DRAWN, MODULES, NOT_CAPTURED, NOT_SPLIT
from supernode.capture import Captured, capture
from supernode.errors import CaptureError, UnknownOp
from supernode.partition import partition

Step = Callable[..., list[Tensor]]


def differentiated(module: nn.Module) -> Step:
    """The output of a module, and its gradients by the first input and all parameters."""

    def step(first: Tensor, *others: Tensor) -> list[Tensor]:
        wanted = list(module.parameters())
        if first.is_floating_point():
            first = first.detach().requires_grad_()
            wanted.append(first)
        out = module(first, *others)
        out = out[0] if isinstance(out, tuple) else out
        loss = out.square().mean() if out.dim() else out
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        return [out.detach(), *(each for each in gradients if each is not None)]

    return step


def captured(name: str) -> tuple[Captured, Step, tuple[Tensor, ...]]:
    make, args = MODULES[name]
    torch.manual_seed(0)
    module = make().double()
    step = differentiated(module)
    return capture(step, module, (), args), step, args


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MODULES if n not in {*NOT_CAPTURED, *NOT_SPLIT}])
def test_a_module_on_two_chips(name: str) -> None:
    made, step, args = captured(name)
    values: dict[str, Any] = made.inputs() | made.bind(*args)
    inputs = [values[port.name] for port in made.program.inputs]
    plan = partition(made.program, "dp=2")
    assert any(layout is not None and any(layout.dims) for layout in plan.inputs)
    got = made.result(run_plan(plan, inputs))
    whole = made.result(run_program(made.program, inputs)) if name in DRAWN else step(*args)
    for ours, theirs in zip(got, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_what_is_not_captured_depends_on_data(name: str) -> None:
    with pytest.raises(CaptureError, match="depends on data"):
        captured(name)


@pytest.mark.parametrize(("name", "op"), NOT_SPLIT.items())
def test_what_is_not_split_names_the_op(name: str, op: str) -> None:
    program = captured(name)[0].program
    partition(program, "")
    with pytest.raises(UnknownOp, match=op):
        partition(program, "dp=2")


def test_the_page_is_current() -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("modules_page", root / "tools" / "modules.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = (root / "docs" / "reference" / "modules.md").read_text(encoding="utf-8")
    assert written == tool.page(), "run `python tools/modules.py --write`"
