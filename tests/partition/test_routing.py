"""Tokens that are routed to experts: what a chip may sort for itself, and what it may not."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from emulate import run_plan, run_program
from moe import WIDTH, Experts, Mix, MoeStep, add_up, moe_step, put_back
from numerics import assert_close
from supernode.capture import Captured, capture
from supernode.partition import partition
from supernode.partition.routing import find_routing
from supernode.plan import Plan

LINES = ("dp=2", "dp=4", "fsdp=2", "cp=2", "dp=2,cp=2", "tp=2", "dp=2,tp=2", "tp=2,sp")
ONE = (0.0, 9.0, 0.0, 0.0)
"""All tokens go to the second of four experts."""
TWO = (9.0, -9.0, -9.0, 9.0)
"""All tokens go to the first and the last; the others have none."""


def captured(made: MoeStep) -> Captured:
    return capture(made.step, made.model, made.optimizer, made.args)


def check(made: MoeStep, line: str) -> Plan:
    """One step over many chips gives what one chip gives."""
    found = captured(made)
    known = found.inputs() | found.host_values() | found.bind(*made.args)
    inputs = [known[port.name] for port in found.program.inputs]
    plan = partition(found.program, line)
    got, want = run_plan(plan, inputs), run_program(found.program, inputs)
    for one, many in zip(want, got, strict=True):
        assert_close(many, one, reduced=4096)
    return plan


def collectives(plan: Plan) -> Counter[str]:
    """Bytes of the whole values that collectives of the plan carry."""
    counts = plan.local.counts()
    total: Counter[str] = Counter()
    for block in plan.local.all_blocks():
        for op in block.ops:
            if op.name.startswith("fabric."):
                sides = (op.inputs, op.outputs)
                size = max(sum(v.type.size_bytes for v in side) for side in sides)
                total[op.name.removeprefix("fabric.")] += size * counts.get(block.name, 1)
    return total


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("mix", [put_back, add_up])
def test_a_step_over_many_chips_is_that_of_one(mix: Mix, line: str) -> None:
    check(moe_step(mix), line)


@pytest.mark.parametrize("towards", [ONE, TWO])
@pytest.mark.parametrize("top", [1, 2])
def test_all_tokens_may_go_to_few_experts(towards: tuple[float, ...], top: int) -> None:
    check(moe_step(top=top, towards=towards), "dp=2,cp=2")


@pytest.mark.parametrize("mix", [put_back, add_up])
@pytest.mark.parametrize("line", ["dp=2", "dp=2,cp=2"])
def test_no_token_leaves_its_chip(mix: Mix, line: str) -> None:
    made = moe_step(mix)
    gradients = sum(param.nbytes for param in made.model.parameters())
    loss = 4
    axes = line.count("=")
    assert collectives(check(made, line)) == {"all_reduce": axes * (gradients + loss)}


def test_layers_that_repeat_share_one_block() -> None:
    made = moe_step(layers=6)
    plan = check(made, "dp=2")
    assert [block.name for block in plan.local.blocks]
    gradients = sum(param.nbytes for param in made.model.parameters())
    assert collectives(plan) == {"all_reduce": gradients + 4}


# ---- where the order of the rows matters ----


def scanned(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """What a row gets depends on the rows before it."""
    return put_back(moe, rows.cumsum(0), weights, order, tokens)


def first_rows(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Sorted rows are taken for rows of tokens."""
    return put_back(moe, rows, weights, order, tokens) + rows[:tokens]


def numbered(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """An index is taken for a number."""
    return put_back(moe, rows * order[:, None], weights, order, tokens)


def mismatched(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Plain rows are added to sorted ones."""
    return put_back(moe, rows + weights.flatten()[:, None], weights, order, tokens)


def overwritten(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Rows are put back onto rows that are not blank, in another order's places."""
    other = weights.flatten().argsort()
    rows = rows * weights.flatten()[order, None]
    return rows[other].view(tokens, moe.top, -1).sum(1)


@pytest.mark.parametrize("line", ["dp=2", "fsdp=2", "dp=2,cp=2"])
@pytest.mark.parametrize("mix", [scanned, first_rows, numbered, mismatched, overwritten])
def test_rows_stay_whole_where_their_order_matters(mix: Mix, line: str) -> None:
    made = moe_step(mix)
    assert find_routing(captured(made).program).refuted
    plan = check(made, line)
    assert collectives(plan).keys() & {"all_gather", "all_to_all"}


def test_what_refutes_is_named() -> None:
    (why,) = find_routing(captured(moe_step(scanned)).program).refuted.values()
    assert why.startswith("aten.cumsum uses the order of the rows (test_routing.py:")
    assert "test_routing.py" in why


def test_sorted_rows_may_not_be_handed_out() -> None:
    def order(x: Tensor, scores: Tensor) -> Tensor:
        return x.flatten(0, 1)[scores.flatten().sort()[1]]

    x, scores = torch.randn(4, 8, WIDTH), torch.randn(4, 8)
    found = capture(order, None, None, (x, scores)).program
    assert set(find_routing(found).refuted.values()) == {"sorted rows are a result of the step"}
    (got,) = run_plan(partition(found, "dp=2"), [x, scores])
    assert torch.equal(got, order(x, scores))


def test_a_sort_of_rows_apart_is_no_order_of_rows() -> None:
    def order(x: Tensor) -> Tensor:
        return x.sort(-1)[0]

    x = torch.randn(4, 8)
    assert find_routing(capture(order, None, None, (x,)).program).pinned == {}
