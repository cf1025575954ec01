"""Every op knows its module, its phase and the user's line; the printed program is as it was."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture.jobs import adamw, data
from supernode.capture import Captured, capture


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


def captured(fold: bool) -> Captured:
    model = nn.Sequential(Layer(), Layer())
    opt = adamw(model)

    def step(x: Tensor, y: Tensor) -> Tensor:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        return loss.detach()

    return capture(step, model, opt, data(), fold=fold)


def test_modules_phases_and_lines() -> None:
    ops = captured(fold=False).program.main.ops
    phases = [op.site.phase for op in ops]
    assert phases == sorted(phases, key=["forward", "backward", "optimizer"].index)
    for phase in ("forward", "backward"):
        modules = [op.site.module for op in ops if op.site.phase == phase]
        assert {"0", "0.up", "0.down", "1", "1.up", "1.down"} <= set(modules)
        # What is left is the loss.
        assert modules.count("") <= 5
    assert all(op.site.source.startswith("test_sites.py:") for op in ops)
    gelu = {(op.site.module, op.site.source) for op in ops if "gelu" in op.name}
    assert len({source for _, source in gelu}) == 1
    assert {module for module, _ in gelu} == {"0", "1"}


def test_accumulated_gradients_belong_to_the_module_of_the_parameter() -> None:
    model = nn.Sequential(nn.Linear(4, 4))

    def step(x: Tensor) -> None:
        model(x).sum().backward()
        (model(x) * 2).sum().backward()

    program = capture(step, model, (), (torch.ones(2, 4),), fold=False).program
    adds = [op for op in program.main.ops if op.name == "aten.add.Tensor"]
    assert {(op.site.module, op.site.phase) for op in adds} == {("0", "backward")}


def test_printed_program(golden: Callable[[str, str], Any]) -> None:
    golden("captured_mlp.txt", str(captured(fold=False).program) + "\n")
