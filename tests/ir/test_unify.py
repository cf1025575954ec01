"""Equal views become one, and nothing else changes."""

import torch

from emulate import run_program
from programs import Builder, random_inputs
from supernode.ir import unify_views


def test_views_taken_twice_are_kept_once_per_phase() -> None:
    b = Builder()
    x = b.input("x", "arg", (2, 3, 4))
    w = b.input("w", "param", (4, 4))
    rows = [b.op("aten.view", x, (6, 4)) for _ in range(3)]
    products = [b.op("aten.mm", each, b.op("aten.t", w)) for each in rows]
    other = b.op("aten.view", x, (3, 8))
    b.phase("backward")
    again = b.op("aten.view", x, (6, 4))
    b.result(b.op("aten.add.Tensor", products[0], b.op("aten.add.Tensor", products[1], again)))
    b.result(products[2], "third")
    b.result(other, "other")
    program = b.build()
    unified = unify_views(program)
    names = [op.name for op in unified.main.ops]
    assert names.count("aten.view") == 3
    assert names.count("aten.t") == 1
    assert names.count("aten.mm") == 3
    inputs = random_inputs(program)
    for got, want in zip(run_program(unified, inputs), run_program(program, inputs), strict=True):
        assert torch.equal(got, want)
