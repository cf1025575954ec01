"""Partial sums that only meet in a sum are added up over chips once, and the result is the same."""

import pytest

from emulate import run_plan, run_program
from numerics import assert_close
from programs import Builder, random_inputs
from supernode.ir import Program, Value
from supernode.partition import partition
from wires import sent

TOKENS, WIDTH, HIDDEN, READERS = 8, 16, 32, 3
ACTIVATION = TOKENS * WIDTH * 4


def residual_with_products(
    *, scaled: bool = False, read_between: bool = False, kept: bool = False
) -> Program:
    """`((r + a) + b) + c` where a, b and c are products that sum hidden units away.

    `scaled`: b is added times two; `read_between`: something else reads r + a; `kept`: r + a is a
    result too.
    """
    b = Builder()
    x = b.input("x", "arg", (TOKENS, WIDTH))
    total: Value = x
    for i in range(READERS):
        up = b.input(f"up{i}", "param", (WIDTH, HIDDEN))
        down = b.input(f"down{i}", "param", (HIDDEN, WIDTH))
        product = b.op("aten.mm", b.op("aten.relu", b.op("aten.mm", x, up)), down)
        total = b.op("aten.add.Tensor", total, product, **({"alpha": 2} if scaled else {}))
        if i == 0 and read_between:
            b.result(b.op("aten.relu", total), "between")
        if i == 0 and kept:
            b.result(total, "kept")
    b.result(b.op("aten.relu", total))
    return b.build()


def check(program: Program, layout: str) -> int:
    """How many activations are added up over chips; what is computed is the same."""
    plan = partition(program, layout)
    inputs = random_inputs(program)
    for got, want in zip(run_plan(plan, inputs), run_program(program, inputs), strict=True):
        assert_close(got, want, reduced=HIDDEN)
    assert set(sent(plan)) == {"all_reduce"}
    pieces = plan.mesh.size // plan.mesh.axis_size("tp")
    return sent(plan)["all_reduce"] * pieces // ACTIVATION


@pytest.mark.parametrize("layout", ["tp=2", "tp=3", "dp=2,tp=2"])
def test_products_are_added_before_they_are_added_up(layout: str) -> None:
    assert check(residual_with_products(), layout) == 1


def test_what_something_else_reads_is_added_up_for_it() -> None:
    assert check(residual_with_products(read_between=True), "tp=2") == READERS - 1
    assert check(residual_with_products(kept=True), "tp=2") == READERS - 1


def test_a_scaled_sum_is_left_as_it_is() -> None:
    assert check(residual_with_products(scaled=True), "tp=2") == READERS
