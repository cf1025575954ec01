"""Named schemes on whole train steps: the result, and the bytes sent against the textbook."""

from functools import lru_cache

import pytest

from emulate import run_plan, run_program
from numerics import assert_close
from supernode.capture import Captured, capture
from supernode.ir import Program
from supernode.models import recipe
from supernode.partition import partition
from wires import parameter_bytes, sent, within

LINES = (
    "dp=2",
    "zero1=2",
    "fsdp=4",
    "tp=2",
    "tp=2,sp",
    "dp=2,tp=2",
    "fsdp=2,tp=2,sp",
    "cp=2",
    "dp=2,cp=2",
    "fsdp=2,cp=2",
    "micro=4",
    "dp=2,micro=2",
    "fsdp=2,tp=2,sp,micro=2",
    "dp=2,fsdp=2,cp=2,tp=2",
    "pp=2,dp=2,zero1=2,cp=2,tp=2,sp",
)


@lru_cache
def captured(name: str) -> Captured:
    job = recipe(name).build(batch=4)
    return capture(job.step, job.model, job.optimizer, job.inputs, name=name)


def program(name: str) -> Program:
    return captured(name).program


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_a_train_step_gives_the_one_chip_result(name: str, line: str) -> None:
    found = captured(name)
    job = recipe(name).build(batch=4)
    values = {**found.inputs(), **found.bind(*job.inputs)}
    inputs = [values[port.name] for port in found.program.inputs]
    want = run_program(found.program, inputs)
    got = run_plan(partition(found.program, line), inputs)
    for port, g, w in zip(found.program.outputs, got, want, strict=True):
        # One AdamW step moves a weight by at most about the learning rate, 1e-3, whatever the
        # rounding of its gradient; what is compared first is what is not so amplified.
        if port.role == "param":
            assert float((g - w).abs().max()) <= 2.5e-3
        else:
            assert_close(g, w, reduced=4096)


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_data_parallel_adds_up_each_gradient_once(name: str) -> None:
    total = sent(partition(program(name), "dp=2"))
    assert total.keys() == {"all_reduce"}
    assert within(total["all_reduce"], parameter_bytes(program(name)))


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_fsdp_gathers_weights_twice_and_scatters_gradients_once(name: str) -> None:
    total = sent(partition(program(name), "fsdp=2"))
    size = parameter_bytes(program(name))
    # The embedding's weight is not needed in backward.
    assert 1.5 * size <= total["all_gather"] <= 2.1 * size
    assert within(total["reduce_scatter"] + total["all_reduce"], size)


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_tensor_parallel_adds_up_four_activations_a_layer(name: str) -> None:
    layers, job = {"gpt-tiny": 2, "llama-tiny": 4}[name], recipe(name).build(batch=4)
    activation = job.tokens_per_step * 64 * 4
    total = sent(partition(program(name), "tp=2"))
    # Beside the layers: the embedding forward, the output head backward, the softmax's sums.
    ends = 2.6 * activation
    assert total.keys() == {"all_reduce"}
    assert 4 * layers * activation <= total["all_reduce"] <= 1.05 * (4 * layers * activation + ends)


def test_sequence_parallel_moves_what_tensor_parallel_does() -> None:
    plain = sent(partition(program("llama-tiny"), "tp=2"))["all_reduce"]
    split = sent(partition(program("llama-tiny"), "tp=2,sp"))
    # An all-reduce is a reduce-scatter and an all-gather; what was gathered forward is kept split
    # and gathered again backward, two more for the eight of a layer.
    assert split["all_gather"] + split["reduce_scatter"] <= 1.05 * 1.25 * 2 * plain
    assert split["all_reduce"] < 0.1 * plain


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_context_parallel_gathers_keys_and_values_and_scatters_their_gradients(name: str) -> None:
    layers, kv_width = {"gpt-tiny": (2, 64), "llama-tiny": (4, 32)}[name]
    keys_and_values = recipe(name).build(batch=4).tokens_per_step * 2 * kv_width * 4
    total = sent(partition(program(name), "cp=2"))
    assert within(total["all_gather"], 2 * layers * keys_and_values)
    assert within(total["reduce_scatter"], layers * keys_and_values)
    assert within(total["all_reduce"], parameter_bytes(program(name)))


def test_reductions_over_two_axes_are_merged() -> None:
    for line in ("dp=2,cp=2", "dp=2,fsdp=2,cp=2"):
        plan = partition(program("llama-tiny"), line)
        for block in plan.local.blocks:
            axes = [op.args[1] for op in block.ops if op.name == "fabric.all_reduce"]
            assert axes.count("dp") <= 1, block.name


def test_collectives_of_a_layer_are_merged() -> None:
    plan = partition(program("llama-tiny"), "fsdp=2")
    for block in plan.local.blocks:
        gathers = [op for op in block.ops if op.name == "fabric.all_gather"]
        assert len(gathers) <= 1, block.name
        assert not gathers or len(gathers[0].outputs) >= 9


def test_the_number_of_chips_changes_no_op_count() -> None:
    few = partition(program("llama-tiny"), "fsdp=2")
    many = partition(program("llama-tiny"), "fsdp=4")
    assert few.local.num_ops() == many.local.num_ops()
