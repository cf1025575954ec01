"""A serving step over chips gives the scores of one chip, and its cache lies where its work is."""

from itertools import product
from typing import Any

import pytest
import torch

from emulate import run_plan, run_program
from numerics import assert_close
from supernode.capture import capture
from supernode.models import Shape, sized
from supernode.partition import partition
from supernode.plan import Plan

SMALL = {"layers": 2, "hidden": 32, "heads": 4, "vocab": 64, "ffn": 48}
SHAPES = {
    "gpt": Shape(family="gpt", **SMALL, bias=True, tied=True),
    "llama": Shape(family="llama", **SMALL, kv_heads=2, qk_norm=True),
    "minimax": Shape(family="llama", **SMALL, kv_heads=2, joint_norm=True),
    "mixtral": Shape(family="llama", **SMALL, kv_heads=2, experts=4, topk=2),
    "deepseek": Shape(
        family="deepseek",
        **SMALL,
        experts=4,
        topk=2,
        expert_ffn=16,
        shared_experts=1,
        dense_layers=1,
    ),
    "gpt-oss": Shape(
        family="gpt-oss", **SMALL, kv_heads=2, head_dim=8, experts=4, topk=2, window=4
    ),
}


def served(family: str, phase: str, layout: str) -> tuple[Plan, list[Any], list[Any]]:
    """The plan, and what it and one chip give for the same inputs."""
    recipe = sized(family, SHAPES[family], sequence=8, summary="")
    job = recipe.build(batch=4, phase=phase)
    job.model.float()
    captured = capture(job.step, job.model, job.optimizer, job.inputs)
    program = captured.program
    known = captured.inputs() | captured.host_values() | captured.bind(*job.inputs)
    generator = torch.Generator().manual_seed(0)
    for name, value in known.items():
        if "BGSK" in name or "B1SW" in name:
            known[name] = torch.randn(value.shape, generator=generator)
    inputs = [known[port.name] for port in program.inputs]
    plan = partition(program, layout)
    return plan, run_plan(plan, inputs), run_program(program, inputs)


MIXED = ("mixtral", "deepseek", "gpt-oss")


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *product(SHAPES, ["dp=2", "tp=2", "dp=2,tp=2"]),
        *product(MIXED, ["ep=2", "tp=2,ep=tp", "dp=2,tp=2,ep=tp", "ep=2,micro=2,turns"]),
    ],
)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_served_model_over_chips_is_that_of_one(family: str, phase: str, layout: str):
    _, got, want = served(family, phase, layout)
    for many, one in zip(got, want, strict=True):
        assert_close(many, one, reduced=256)


@pytest.mark.parametrize(
    ("layout", "dims"),
    [("dp=2", "[dp, -, -, -]"), ("tp=2", "[-, tp, -, -]"), ("dp=2,tp=2", "[dp, tp, -, -]")],
)
def test_the_cache_of_a_sequence_and_head_lies_where_they_are_computed(layout: str, dims: str):
    plan, _, _ = served("llama", "decode", layout)
    caches = [
        home
        for port, home in zip(plan.program.inputs, plan.inputs, strict=True)
        if port.name.endswith("BGSK")
    ]
    assert [str(home) for home in caches] == [dims] * 4
    moved = {
        op.name
        for block in plan.local.all_blocks()
        for op in block.ops
        if op.name == "fabric.all_gather"
    }
    assert moved == set()


def test_heads_normed_together_are_summed_once_a_layer():
    plan, _, _ = served("minimax", "decode", "tp=2")
    sums = [op for block in plan.local.all_blocks() for op in block.ops if "all_reduce" in op.name]
    assert sum(op.outputs[0].tensor.shape == (4, 1, 2) for op in sums) == 2  # layers


def test_microbatches_in_turns_send_alternately_and_wait_for_no_others_cache():
    order = {}
    for line in ("ep=2,micro=2", "ep=2,micro=2,turns"):
        plan, _, _ = served("deepseek", "decode", line)
        ops = plan.local.main.ops
        sent = [op.name for op in ops if op.name.startswith("fabric.")]
        order[line] = sent
        cuts = [op for op in ops if op.name == "local.part" and len(op.outputs[0].type.shape) == 4]
        assert len(cuts) == 2 * SMALL["layers"]  # none of what was joined
    one_by_one, turns = order.values()
    assert sorted(turns) == sorted(one_by_one)
    assert turns[::2] == turns[1::2] == one_by_one[: len(turns) // 2]
