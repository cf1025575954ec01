"""Elements written in order where a mask is: samples stay on their chips."""

from typing import Any

import pytest
import torch

from emulate import run_plan, run_program
from programs import Builder
from supernode.ir import Program
from supernode.partition import partition
from wires import sent

SAMPLES, TOKENS, WIDTH, TAKEN = 5, 6, 8, 3
LINES = ("dp=2", "dp=5", "micro=2", "dp=2,micro=2", "dp=2,fsdp=2")
ROWS = SAMPLES * TAKEN
INT = 8


def images(*shape: int) -> Program:
    """Rows of images between those of words, and the gradients of both."""
    b = Builder()
    x, mask = (
        b.input("x", "arg", (SAMPLES, TOKENS, WIDTH)),
        b.input("mask", "arg", (SAMPLES, TOKENS, 1), "bool"),
    )
    source = b.input("source", "arg" if len(shape) == 3 else "buffer", shape)
    out = b.op("aten.masked_scatter", x, mask, source)
    b.result(out)
    b.phase("backward")
    grad = b.op("aten.mul.Tensor", out, out)
    b.result(b.op("aten.masked_scatter_backward", grad, mask, shape), "grad")
    return b.build()


def inputs(mask: torch.Tensor, *shape: int) -> list[Any]:
    torch.manual_seed(0)
    return [torch.randn(SAMPLES, TOKENS, WIDTH), mask.unsqueeze(-1), torch.randn(shape)]


def equal() -> torch.Tensor:
    """Each sample takes as many rows, at places of its own."""
    torch.manual_seed(1)
    return torch.stack([torch.randperm(TOKENS) < TAKEN for _ in range(SAMPLES)])


def check(program: Program, line: str, values: list[Any]) -> int:
    """The bytes that the plan gathers; its results are those of one chip."""
    plan = partition(program, line)
    for got, want in zip(run_plan(plan, values), run_program(program, values), strict=True):
        torch.testing.assert_close(got, want)
    return sent(plan)["all_gather"]


@pytest.mark.parametrize("line", LINES)
def test_rows_of_each_sample_stay_with_it(line: str) -> None:
    shape = SAMPLES, TAKEN, WIDTH
    assert check(images(*shape), line, inputs(equal(), *shape)) == 0


@pytest.mark.parametrize("line", LINES)
def test_rows_of_all_are_counted(line: str) -> None:
    """Samples take what they like, one of them none; each chip tells how many, once or twice."""
    mask = torch.arange(TOKENS) < torch.tensor([0, 6, 1, 3, 2]).unsqueeze(1)
    gathered = check(images(ROWS, WIDTH), line, inputs(mask, ROWS, WIDTH))
    # Both directions count; pieces are padded to the longest of two axes.
    assert gathered <= 2 * 2 * 8 * INT


def test_a_sample_that_takes_the_rows_of_another_fails() -> None:
    shape = SAMPLES, TAKEN, WIDTH
    mask = equal()
    mask[0], mask[-1] = False, True
    with pytest.raises(RuntimeError, match="more or fewer places in some of them"):
        run_plan(partition(images(*shape), "dp=2"), inputs(mask, *shape))
