"""Microbatches: the batch in parts one after another; gradients are added up, then sent once."""

from collections import Counter
from functools import lru_cache

import pytest
import torch

from emulate import run_plan, run_program
from numerics import assert_close
from programs import Builder, random_inputs
from supernode.capture import Captured, capture
from supernode.errors import LayoutError
from supernode.ir import CALL, Program, TensorType
from supernode.machine import load_machine
from supernode.models import recipe
from supernode.partition import parse_line, partition
from supernode.plan import Plan
from supernode.plan.memory import memory
from supernode.simulate import simulate
from supernode.trace import COMPUTE
from wires import parameter_bytes, sent, within

PARTS = 4
SCATTER = "fabric.reduce_scatter"


@lru_cache
def captured(batch: int = 8) -> Captured:
    job = recipe("llama-tiny").build(batch=batch)
    return capture(job.step, job.model, job.optimizer, job.inputs, name="llama-tiny")


def plan(line: str) -> Plan:
    return partition(captured().program, line)


def test_parts_in_time_need_no_more_chips() -> None:
    line = parse_line("micro=4,dp=2,tp=2", 4)
    assert [axis.name for axis in line.axes] == ["dp", "tp", "micro"]
    assert (line.chips, line.parts) == (4, 4)
    assert plan("dp=2,micro=4").mesh.size == 2
    assert plan("micro=4").mesh.size == 1


def test_data_parallel_sends_the_gradients_once() -> None:
    once, parts = sent(plan("dp=2")), sent(plan(f"dp=2,micro={PARTS}"))
    assert within(parts["all_reduce"], once["all_reduce"])
    assert parts["all_gather"] == 0


def test_zero1_reduces_the_gradients_once() -> None:
    once, parts = sent(plan("zero1=2")), sent(plan(f"zero1=2,micro={PARTS}"))
    assert within(parts["reduce_scatter"], once["reduce_scatter"])


def test_fsdp_gathers_weights_and_scatters_gradients_for_every_part() -> None:
    """So no chip ever holds more than a block of whole weights or gradients."""
    weights = parameter_bytes(captured().program)
    parts = sent(plan(f"fsdp=2,micro={PARTS}"))
    assert within(parts["reduce_scatter"], PARTS * weights)
    assert parts["all_gather"] <= 1.05 * 2 * PARTS * weights


def test_a_layer_scatters_its_gradients_while_the_next_one_computes() -> None:
    """What adds them up stands behind the next call of backward."""
    local = plan(f"fsdp=2,micro={PARTS}").local
    blocks = {block.name: [op.name for op in block.ops] for block in local.blocks}
    calls = [op for op in local.main.ops if op.name == CALL and op.site.phase == "backward"]
    kinds = ["scatter" if SCATTER in blocks[op.block] else "add" for op in calls]
    layers = 4 * PARTS
    assert kinds.count("scatter") == layers
    # With the first part the sum is the part itself.
    assert kinds[4:] == ["scatter", *(layers - 5) * ["scatter", "add"], "add"]

    trace = simulate(plan(f"fsdp=2,micro={PARTS}"), load_machine("hgx-h100")).trace
    busy = [span for span in trace.spans if span.stream == COMPUTE]
    scatters = [span for span in trace.spans if span.name == SCATTER and "blocks" in span.module]
    assert len(scatters) == layers
    for span in scatters:
        beside = (min(b.end_s, span.end_s) - max(b.start_s, span.start_s) for b in busy)
        assert sum(max(0.0, each) for each in beside) >= 0.99 * span.duration_s


def test_tensor_parallel_sends_what_the_whole_batch_would() -> None:
    once, parts = sent(plan("tp=2")), sent(plan(f"tp=2,micro={PARTS}"))
    assert within(parts["all_reduce"], once["all_reduce"])


def test_tokens_split_with_heads_are_sent_as_those_of_the_whole_batch() -> None:
    """Behind a bias, too, whose sum over chips is complete before it is added."""
    job = recipe("gpt-tiny").build(batch=8)
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    once, parts = (sent(partition(program, line)) for line in ("tp=2,sp", "tp=2,sp,micro=4"))
    for kind in ("all_gather", "all_reduce", "reduce_scatter"):
        assert within(parts[kind], once[kind]), kind


def test_activations_of_one_part_only_are_held() -> None:
    whole, parts = memory(plan("").local), memory(plan(f"micro={PARTS}").local)
    assert parts.parts["activations"] <= 1.05 / PARTS * whole.parts["activations"]
    assert parts.peak_bytes < whole.peak_bytes


def test_blocks_are_written_once_for_all_parts_between() -> None:
    """More microbatches are more calls, not more blocks."""
    few, many = plan("micro=4").local, plan("micro=8").local
    assert [block.name for block in few.blocks] == [block.name for block in many.blocks]
    calls = [Counter(op.block for op in p.main.ops if op.name == CALL) for p in (few, many)]
    assert calls[1]["blocks_forward"] == 2 * calls[0]["blocks_forward"]


def half(batch: int = 8) -> Program:
    b = Builder()
    x = b.input("x", "arg", (batch, 16), "bfloat16")
    w = b.input("w", "param", (16, 4), "bfloat16")
    y = b.op("aten.mm", x, w)
    b.phase("backward")
    grad = b.op("aten.mm", b.op("aten.t", x), y)
    b.phase("optimizer")
    b.update(w, b.op("aten.sub.Tensor", w, grad))
    return b.build()


def test_gradients_of_half_precision_are_added_up_in_float32() -> None:
    """256 equal parts: in bfloat16 the sum would stop at 256 times the first, then not grow."""
    program = half(batch=512)
    x = torch.ones(512, 16, dtype=torch.bfloat16)
    w = torch.full((16, 4), 2.0**-10, dtype=torch.bfloat16)
    split = partition(program, "micro=512")
    sums = [op for op in split.local.main.ops if op.name == "aten.add.Tensor"]
    assert {op.outputs[0].type for op in sums} == {TensorType("float32", (16, 4))}
    (got,), (want,) = run_plan(split, [x, w]), run_program(program, [x, w])
    assert_close(got, want, reduced=16)


def test_batch_statistics_are_those_of_the_whole_batch() -> None:
    b = Builder()
    x = b.input("x", "arg", (8, 3, 4))
    scale, bias = b.input("scale", "param", (3,)), b.input("bias", "param", (3,))
    mean, var = b.input("mean", "buffer", (3,)), b.input("var", "buffer", (3,))
    out = b.op(
        "aten._native_batch_norm_legit_functional", x, scale, bias, mean, var, True, 0.1, 1e-5
    )
    b.result(out[0])
    b.update(mean, out[3])
    b.update(var, out[4])
    program = b.build()
    inputs = random_inputs(program)
    inputs[4] = inputs[4].abs()
    for line in ("micro=4", "dp=2,micro=2"):
        got, want = run_plan(partition(program, line), inputs), run_program(program, inputs)
        for one, other in zip(got, want, strict=True):
            assert_close(one, other, reduced=64)


def rows_of_parts(local: Program) -> list[int]:
    """How many sequences each part embeds."""
    ops = local.main.ops
    return [op.outputs[0].tensor.shape[0] for op in ops if op.name == "aten.embedding"]


def test_parts_of_a_batch_that_they_do_not_divide() -> None:
    """Three chips have 3, 3 and 2 of eight sequences, the larger part first."""
    split = plan("dp=3,micro=2")
    assert [rows_of_parts(split.local_of(rank)) for rank in range(3)] == [[2, 1], [2, 1], [1, 1]]
    assert rows_of_parts(plan("micro=3").local) == [3, 3, 2]
    assert sent(split)["all_reduce"] == sent(plan("dp=3"))["all_reduce"]


def test_of_unequal_parts_the_largest_is_held() -> None:
    whole, parts = memory(plan("").local), memory(plan("micro=3").local)
    assert parts.parts["activations"] <= 1.05 * 3 / 8 * whole.parts["activations"]


@pytest.mark.parametrize("line", ["micro=9", "dp=3,micro=3"])
def test_more_parts_than_samples_are_refused(line: str) -> None:
    with pytest.raises(LayoutError, match=r"leaves microbatches without a part of dim 0 of"):
        plan(line)
