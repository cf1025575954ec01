"""What torch reserved for plain training steps on a GPU, against what the replay says it would.

Measured on an NVIDIA H200 with torch 2.11.0+cu130 on 2026-11-27: AdamW, eager, after a dozen steps;
`max_memory_allocated` and `memory_reserved`.
"""

import pytest
import torch

from supernode.capture import capture
from supernode.machine import load_machine
from supernode.models import Recipe, Shape, Training, recipe
from supernode.partition import partition
from supernode.plan import job_requests, replay
from supernode.simulate import simulate

LLAMA = Shape(
    family="llama", layers=8, hidden=2048, heads=16, kv_heads=8, vocab=32000, ffn=5632
)  # fmt: skip
EXPERTS = Shape(
    family="llama", layers=4, hidden=1024, heads=16, kv_heads=8, vocab=32000, ffn=2816,
    experts=8, topk=2, expert_ffn=1408,
)  # fmt: skip


def of_shape(shape: Shape) -> Recipe:
    return Recipe(
        name="measured",
        summary="",
        model=shape.model,
        training=Training(learning_rate=3e-4, dtype=torch.bfloat16),
        sequence=2048,
        default_batch=4,
        trainable=False,
        shape=shape,
    )


CASES = {
    "llama": (of_shape(LLAMA), 4, 2048, 12_580_148_224, 13_310_623_744),
    "experts": (of_shape(EXPERTS), 4, 2048, 6_465_025_024, 7_302_283_264),
    "gpt-mini": (recipe("gpt-mini"), 16, 256, 838_921_216, 954_204_160),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_a_gpu_reserved(name: str) -> None:
    made, batch, sequence, allocated_bytes, reserved_bytes = CASES[name]
    job = made.build(batch, sequence=sequence, device="meta")
    captured = capture(job.step, job.model, job.optimizer, job.inputs).program
    plan, machine = partition(captured, ""), load_machine("hgx-h200")
    held = replay(job_requests(plan.local, workspace_bytes=machine.chip.memory.workspace_bytes))
    assert held.allocated_bytes == pytest.approx(allocated_bytes, rel=1e-3)
    assert held.reserved_bytes == pytest.approx(reserved_bytes, rel=0.02)
    assert simulate(plan, machine).reserved_bytes == held.reserved_bytes
