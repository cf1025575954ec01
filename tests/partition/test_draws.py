"""Random numbers are drawn in parts, and are the same in every layout: those of one chip."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawn import Drawing
from emulate import run_plan
from numerics import assert_close
from supernode.capture import Captured, capture
from supernode.partition import partition

LAYOUTS = (
    "",
    "dp=2",
    "fsdp=2",
    "zero1=2",
    "tp=2",
    "tp=2,sp",
    "cp=2",
    "dp=2,cp=2",
    "fsdp=2,tp=2",
    "micro=2",
    "dp=2,micro=2",
    "micro=3",
    "cp=2,micro=3",
    "fsdp=2,recompute=selective",
    "dp=2,recompute=full",
    "dp=2,micro=2,recompute=full",
)


class Block(nn.Module):
    """Attention and an MLP, with dropout wherever GPT-2 has one."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(3))
        self.out = nn.Linear(16, 16, bias=False)
        self.up, self.down = nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each(x).unflatten(-1, (4, 4)).transpose(1, 2) for each in self.qkv)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.2)
        x = x + F.dropout(self.out(y.transpose(1, 2).flatten(2)), 0.1)
        return x + F.dropout(self.down(F.dropout(self.up(x).relu(), 0.3)), 0.1)


def _job() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    torch.manual_seed(7)
    model = nn.Sequential(Block(), Block()).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(4, 8, 16).double()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer):
    def step(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn_like(x)
        mask = F.dropout(torch.ones_like(x), 0.5)
        loss = (model(x + 0.1 * noise) * mask).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach(), noise, mask

    return step


def _captured() -> Captured:
    model, optimizer, x = _job()
    return capture(_step(model, optimizer), model, optimizer, (x,))


@pytest.mark.parametrize("line", LAYOUTS)
def test_steps_with_dropout_are_those_of_plain_pytorch(line: str) -> None:
    """Plain PyTorch is given our masks and noise; weights and loss agree after three steps."""
    captured = _captured()
    plan = partition(captured.program, line)
    model, optimizer, x = _job()
    step = _step(model, optimizer)
    known = captured.inputs() | captured.host_values() | captured.bind(x)
    inputs = [known[port.name] for port in captured.program.inputs]
    for number in range(3):
        outputs = run_plan(plan, inputs)
        with Drawing(captured.seed, number):
            loss, noise, mask = step(x)
        assert_close(outputs[0], loss, reduced=512)
        assert_close(outputs[1], noise)
        assert torch.equal(outputs[2], mask)
        for output, source in zip(outputs, captured.program.updates, strict=True):
            if source is not None:
                inputs[source] = output
    for port, output in zip(captured.program.outputs, outputs, strict=True):
        if port.role == "param":
            assert_close(output, model.get_parameter(port.name).detach(), reduced=512)


@pytest.mark.parametrize(
    ("line", "parts"),
    [("dp=2", 2), ("cp=2", 2), ("dp=2,cp=2", 4), ("tp=2,sp", 2)],
)
def test_no_chip_draws_more_than_its_piece(line: str, parts: int) -> None:
    program = _captured().program
    local = partition(program, line).local
    whole = _drawn_elements(program)
    assert _drawn_elements(local) == whole / parts


def test_a_recompute_draws_its_masks_again() -> None:
    program = _captured().program
    again = _drawn_elements(partition(program, "dp=2,recompute=full").local)
    assert again > _drawn_elements(partition(program, "dp=2").local)


def _drawn_elements(program) -> int:
    counts = program.counts() | {"main": 1}
    return sum(
        counts[block.name] * op.outputs[0].tensor.numel
        for block in program.all_blocks()
        for op in block.ops
        if op.name.startswith("random.")
    )


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(self.linear(x).relu(), 0.5)


def test_a_layer_that_draws_has_one_form_for_all_microbatches() -> None:
    model = nn.Sequential(*(Layer() for _ in range(3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step, x = _step(model, optimizer), torch.zeros(4, 8, 16)
    local = partition(capture(step, model, optimizer, (x,)).program, "micro=4").local
    drawing = [block for block in local.blocks if any("random." in op.name for op in block.ops)]
    # The first layer takes its part of the noise, which is drawn whole.
    assert max(local.counts()[block.name] for block in drawing) == 2 * 4
