"""Fused projections: tensor parallel cuts each part of them, equal or not, and gathers nothing."""

from collections.abc import Callable

import pytest

from emulate import run_plan, run_program
from numerics import assert_close
from programs import Builder, random_inputs
from supernode.ir import Program, Value
from supernode.partition import partition
from supernode.plan import Plan
from wires import sent

TOKENS, WIDTH, DEPTH = 8, 16, 4
Make = Callable[[int, int], Program]
"""Gives a program for so many groups of heads, and heads of q in each."""


def heads(b: Builder, x: Value, *shape: int) -> Value:
    return b.op("aten.view", x, (TOKENS, *shape, DEPTH))


def finish(b: Builder, q: Value, k: Value, v: Value, groups: int, each: int) -> Program:
    """What an attention is to a layout: heads of q, in groups, meet heads of k and v."""
    k, v = (b.op("aten.unsqueeze", heads(b, part, groups), 2) for part in (k, v))
    mixed = b.op("aten.add.Tensor", b.op("aten.mul.Tensor", heads(b, q, groups, each), k), v)
    flat = b.op("aten.view", mixed, (TOKENS, groups * each * DEPTH))
    out = b.input("out", "param", (groups * each * DEPTH, WIDTH))
    b.result(b.op("aten.relu", b.op("aten.mm", flat, out)))
    return b.build()


def product(b: Builder, size: int) -> Value:
    x, fused = b.input("x", "arg", (TOKENS, WIDTH)), b.input("fused", "param", (size, WIDTH))
    return b.op("aten.mm", x, b.op("aten.t", fused))


def by_split(groups: int, each: int) -> Program:
    b, k = Builder(), groups * DEPTH
    parts = b.op("aten.split_with_sizes", product(b, k * (each + 2)), (k * each, k, k), 1)
    return finish(b, *parts, groups, each)


def by_slices(groups: int, each: int) -> Program:
    b, k = Builder(), groups * DEPTH
    made = product(b, k * (each + 2))
    ends = ((0, k * each), (k * each, k * (each + 1)), (k * (each + 1), 2**63 - 1))
    parts = [b.op("aten.slice.Tensor", made, 1, *each) for each in ends]
    return finish(b, *parts, groups, each)


def by_view(groups: int, each: int) -> Program:
    """Equal parts as a dim of their own, as vision transformers have them."""
    assert each == 1
    b = Builder()
    made = b.op("aten.view", product(b, 3 * groups * DEPTH), (TOKENS, 3, groups * DEPTH))
    parts = [b.op("aten.select.int", made, 1, i) for i in range(3)]
    return finish(b, *parts, groups, each)


def check(program: Program, layout: str) -> Plan:
    """The plan, which computes the same."""
    plan = partition(program, layout)
    inputs = random_inputs(program)
    for got, want in zip(run_plan(plan, inputs), run_program(program, inputs), strict=True):
        assert_close(got, want, reduced=256)
    return plan


CASES = [
    (by_split, 4, 2, "tp=2", "tp:2+1+1"),
    (by_split, 4, 2, "tp=4", "tp:2+1+1"),
    (by_split, 3, 2, "tp=2", "tp:2+1+1/3"),
    (by_split, 7, 3, "tp=4", "tp:3+1+1/7"),
    (by_split, 4, 1, "tp=2", "tp:3"),
    (by_split, 3, 1, "tp=2", "tp:3/3"),
    (by_slices, 4, 2, "tp=2", "tp:2+1+1"),
    (by_slices, 3, 2, "tp=2", "tp:2+1+1/3"),
    (by_view, 4, 1, "tp=2", "tp:3"),
    (by_view, 3, 1, "tp=2", "tp:3/3"),
]


@pytest.mark.parametrize(("make", "groups", "each", "layout", "cut"), CASES)
def test_each_part_is_cut_and_one_sum_is_sent(
    make: Make, groups: int, each: int, layout: str, cut: str
) -> None:
    plan = check(make(groups, each), layout)
    units = cut.partition("/")[2]
    heads = f"tp/{units}" if units else "tp"
    assert [str(home) for home in plan.inputs] == ["[-, -]", f"[{cut}, -]", f"[{heads}, -]"]
    assert sent(plan) == {"all_reduce": TOKENS * WIDTH * 4}


@pytest.mark.parametrize("layout", ["fsdp=2,tp=2", "fsdp=3,tp=2", "zero1=2,tp=2", "dp=2,tp=2,sp"])
@pytest.mark.parametrize("make", [by_split, by_slices])
def test_with_other_axes_the_result_is_the_same(make: Make, layout: str) -> None:
    check(make(4, 2), layout)


@pytest.mark.parametrize("layout", ["tp=2", "fsdp=2,tp=2"])
def test_one_head_of_keys_for_all_queries_is_the_same(layout: str) -> None:
    check(by_split(1, 4), layout)


def test_rows_of_sequences_joined_along_the_tokens_stay_on_their_chips() -> None:
    """A cut of stretches is for any axis: here that of the tokens."""
    b = Builder()
    x, y = b.input("x", "arg", (4, TOKENS, WIDTH)), b.input("y", "arg", (4, 2 * TOKENS, WIDTH))
    both = b.op("aten.relu", b.op("aten.cat", (x, y), 1))
    b.result(b.op("aten.sum", b.op("aten.mul.Tensor", both, both)))
    plan = check(b.build(), "cp=2")
    assert sent(plan) == {"all_reduce": 4}
    assert "cp:1+2" in {each for p in plan.placements for dim in p.layout.dims for each in dim}
