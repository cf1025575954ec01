"""Loss scaling over chips: an overflow on one of them is one for all."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from emulate import run_plan, run_program
from numerics import assert_close
from supernode.capture import Captured, capture
from supernode.partition import partition

LAYOUTS = ("dp=2", "fsdp=2,tp=2", "pp=2,micro=2")
BATCHES = 5


def _captured() -> Captured:
    torch.manual_seed(0)
    sizes = (16, 32, 16, 8)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    model = nn.Sequential(*[each for layer in layers for each in (layer, nn.GELU())])
    # A large eps: m / sqrt(v) of near nothing would show rounding as signs.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-3)
    scaler = GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    return capture(step, model, optimizer, _batch(0))


def _batch(number: int) -> tuple[Tensor, Tensor]:
    """The third one has a sample, of those on the last chip, whose gradients are no numbers."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(8, 16, generator=generator)
    x[7, 3] = float("inf") if number == 2 else 0.0
    return x, torch.randint(8, (8,), generator=generator)


def _trained(captured: Captured, run: object) -> list[dict[str, Tensor]]:
    """The state after each batch."""
    program, values = captured.program, captured.inputs()
    states: list[dict[str, Tensor]] = []
    for number in range(BATCHES):
        values |= captured.bind(*_batch(number))
        outputs = run([values[port.name] for port in program.inputs])  # type: ignore[operator]
        for output, source in zip(outputs, program.updates, strict=True):
            if source is not None:
                values[program.inputs[source].name] = output
        states.append({k: v for k, v in values.items() if isinstance(v, Tensor)})
    return states


@pytest.mark.slow
def test_an_overflow_on_one_chip_is_one_for_all() -> None:
    captured = _captured()
    want = _trained(captured, lambda values: run_program(captured.program, values))
    assert [float(each["scaler.scale"]) for each in want] == [8, 16, 8, 8, 16]
    for layout in LAYOUTS:
        plan = partition(captured.program, layout)
        got = _trained(captured, lambda values, plan=plan: run_plan(plan, values))
        for before, after in zip(got[1].items(), got[2].items(), strict=True):
            fixed = before[0] not in ("x", "y", "scaler.scale", "scaler.growth_tracker")
            assert not fixed or torch.equal(before[1], after[1]), f"{layout}: {before[0]}"
        for name, tensor in want[-1].items():
            assert_close(got[-1][name], tensor, reduced=256)


def test_the_flag_of_all_gradients_is_sent_once() -> None:
    """Under dp: the gradients, and nothing else, for each chip has them all then."""
    plan = partition(_captured().program, "dp=2")
    sent = [op for op in plan.local.main.ops if op.name.startswith("fabric.")]
    assert len(sent) <= 2
    assert all(op.name == "fabric.all_reduce" for op in sent)
