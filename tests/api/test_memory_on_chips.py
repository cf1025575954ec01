"""What chips hold in a step of a whole model is what the plan says, to 3 %."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch

import supernode as sn
from supernode.capture import Captured, capture
from supernode.models import recipe
from supernode.plan import Plan
from supernode.run import Node, connect
from supernode.trace import MEMORY, PLANNED_MEMORY
from zoo import zoo_step

CASES = {
    "gpt-tiny": (
        *("", "dp=2", "tp=2,sp", "offload=all", "pp=2,micro=2,offload=all@peers"),
        *("pp=1/dp=2", "pp=1/tp=2,micro=4,offload=all", "pp=fsdp=2/tp=2+sp,micro=2"),
        *("pp=1/fsdp=2,micro=3", "pp=tp=2/dp=2,offload=all@peers"),
    ),
    "llama-tiny": ("fsdp=2", "dp=2,micro=2", "dp=2,recompute=full", "pp=2,micro=4", "zero1=2"),
    "mixtral": ("", "ep=2"),
    "deepseek-v3": ("fsdp=2",),
    "resnet": ("", "dp=2"),
    "convnext": ("", "dp=2"),
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[int, Node]]:
    with ExitStack() as stack:
        yield {n: stack.enter_context(connect(f"cpu:{n}")) for n in range(1, 5)}


@pytest.fixture
def gpu() -> Iterator[Node]:
    with connect("cuda:1") as node:
        yield node


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_plan_says_what_chips_hold(nodes: dict[int, Node], name: str) -> None:
    if name.endswith("-tiny"):
        job = recipe(name).build()
        step, model, optimizer, args = job.step, job.model, job.optimizer, job.inputs
    else:
        pytest.importorskip("transformers")
        made = zoo_step(name, torch.float32)
        step, model, optimizer, args = made.step, made.model, made.optimizer, made.args
    captured = capture(step, model, optimizer, args)
    for layout in CASES[name]:
        plan = sn.partition(captured.program, layout)
        check(nodes[plan.mesh.size], captured, plan, args)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["", "micro=2", "recompute=full", "offload=all"])
@pytest.mark.parametrize("name", ["gpt-mini", "llama-tiny"])
def test_the_plan_says_what_a_gpu_holds(gpu: Node, name: str, layout: str) -> None:
    """Large enough that the allocator's blocks of 512 bytes do not count."""
    job = recipe(name).build(batch=16, sequence=256)
    captured = capture(job.step, job.model, job.optimizer, job.inputs)
    check(gpu, captured, sn.partition(captured.program, layout), job.inputs)


def check(node: Node, captured: Captured, plan: Plan, args: Sequence[Any]) -> None:
    loaded = node.load(plan, captured.inputs())
    given, numbers = captured.bind(*args), captured.host_values()
    loaded.step(given, numbers)  # the first step makes what is kept for all of them
    _, trace = loaded.traced_step(given, numbers, memory=True)
    for chip in range(plan.mesh.size):
        planned = plan.memory().chips[plan.alike(chip)].peak_bytes
        assert trace.peak(PLANNED_MEMORY, chip) == planned
        assert trace.peak(MEMORY, chip) == pytest.approx(planned, rel=0.03), plan.layout
