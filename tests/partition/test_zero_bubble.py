"""Backward in two parts: which ops are put off, what that holds, and what it gains."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from emulate import run_program
from supernode import ops
from supernode.capture import capture
from supernode.ir import CALL, Block, Op, Port, Program
from supernode.kernels import executed_ops
from supernode.ops import Cost
from supernode.partition import partition
from supernode.partition.parted import parted
from supernode.plan import Plan, memory
from supernode.simulate import Terms, simulate
from tiny import level, machine

LAYERS, WIDTH, PARTS = 8, 256, 8
MATMUL_S = 2 * 8 * WIDTH**2 / 1e12
"""One microbatch through one layer; forward and each half of backward are one product each."""


@lru_cache
def captured() -> Program:
    """Equal layers above a table, whose gradient makes backward go through all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(16, WIDTH), *(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def step(tokens: Tensor) -> Tensor:
        loss = model(tokens).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return capture(step, model, optimizer, (torch.randint(16, (PARTS, 8)),)).program


@lru_cache
def plan(line: str) -> Plan:
    return partition(captured(), line)


def products_alone(op: Op) -> Cost:
    """Only products of matrices take time."""
    return ops.cost(op) if op.name == "aten.mm" else Cost()


def step_s(line: str) -> float:
    free = machine((level("node", 8, 1e30, 1e-15),), memory_bandwidth=1e30, launch_s=0.0)
    no_host = Terms().without("host", "jitter", "interference", "fusion")
    return simulate(plan(line), free, cost=products_alone, terms=no_host).step_s


@pytest.mark.parametrize("stages", [2, 4])
def test_the_simulated_bubble_is_the_closed_form(stages: int) -> None:
    """(S - 1)(F + B + W) for 1F1B and (S - 1)(F + B - W) here: Qi et al. 2024, section 2."""
    of_task_s = LAYERS // stages * 2 * MATMUL_S  # products reach half of the peak
    work_s = PARTS * 3 * of_task_s
    for schedule, bubble in (("gpipe", 3), ("1f1b", 3), ("zb", 1)):
        found_s = step_s(f"pp={stages},micro={PARTS},schedule={schedule}")
        assert found_s == pytest.approx(work_s + (stages - 1) * bubble * of_task_s, rel=1e-6)


def products(of: Plan, stage: int, kind: str) -> int:
    chip = of.stages()[stage][1]
    return sum(op.name == "aten.mm" and op.site.task.startswith(kind) for op in executed_ops(chip))


def test_half_of_backward_is_put_off() -> None:
    made = plan("pp=4,micro=8,schedule=zb")
    each = LAYERS // 4 * PARTS
    for stage in (1, 2, 3):
        assert products(made, stage, "backward") == products(made, stage, "weights") == each
    # Nothing is sent on from the first stage, so nobody waits for any of its backward.
    assert (products(made, 0, "backward"), products(made, 0, "weights")) == (0, 2 * each)


def test_what_the_rest_reads_is_held_until_then() -> None:
    """On the last of two stages: what its layers read and the gradients of what they gave, for the
    one microbatch that is put off; these gradients for the one that is at work."""
    now, later = (
        memory(plan(f"pp=2,micro=8,schedule={name}").stages()[1][1]) for name in ("1f1b", "zb")
    )
    of_layers = LAYERS // 2 * 8 * WIDTH * 4
    assert 2 * of_layers <= later.peak_bytes - now.peak_bytes <= 3 * of_layers


def test_a_block_in_two_parts_gives_what_it_gave() -> None:
    program = captured()
    call = next(op for op in program.main.ops if op.name == CALL and op.site.phase == "backward")
    block = program.block(call.block)
    halves = parted(block, (0,))
    assert halves is not None
    given = [
        torch.randn(v.tensor.shape, generator=torch.Generator().manual_seed(v.id))
        for v in block.inputs
    ]
    whole = run_block(block, given)
    first = run_block(halves.blocks[0], [given[i] for i in halves.taken[0]])
    again = [given[i] for i in halves.taken[1]] + [first[i] for i in halves.handed]
    second = run_block(halves.blocks[1], again)
    found = dict(zip(halves.given[0], first, strict=False)) | dict(
        zip(halves.given[1], second, strict=True)
    )
    assert sorted(found) == list(range(len(whole)))
    assert all(torch.equal(found[i], want) for i, want in enumerate(whole))
    assert len(block.ops) == sum(len(half.ops) for half in halves.blocks)
    assert parted(block, range(len(block.outputs))) is None


def run_block(block: Block, given: list[Tensor]) -> list[Tensor]:
    ports = tuple(Port(name=f"x{i}", role="arg") for i in range(len(block.inputs)))
    results = tuple(Port(name=f"y{i}", role="result") for i in range(len(block.outputs)))
    alone = Program(
        name="block",
        main=replace(block, name="main"),
        inputs=ports,
        outputs=results,
        updates=(None,) * len(results),
    )
    return run_program(alone, given)
