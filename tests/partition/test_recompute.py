"""Activations computed again: the same bits, less memory, FLOP as the textbook has them."""

import re
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from emulate import run_program
from supernode.capture import Captured, capture
from supernode.errors import DoesNotFit
from supernode.ir import Program
from supernode.models import recipe
from supernode.ops import cost
from supernode.partition import parse_line, partition, partition_within
from supernode.partition.fit import LIMITS
from supernode.plan import Plan, memory
from supernode.units import format_bytes
from wires import sent
from zoo import CNNS, ZOO, zoo_step

MODES = ("selective", "full", "8")
SINGLE = ("mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss")


@lru_cache
def captured(name: str = "llama-tiny", batch: int = 8) -> Captured:
    job = recipe(name).build(batch=batch)
    return capture(job.step, job.model, job.optimizer, job.inputs, name=name)


def check_bits(name: str) -> None:
    made = zoo_step(name, torch.float32 if name in SINGLE else torch.float64)
    found = capture(made.step, made.model, made.optimizer, made.args)
    known = found.inputs() | found.host_values() | found.bind(*made.args)
    inputs = [known[port.name] for port in found.program.inputs]
    want = run_program(found.program, inputs)
    for mode in MODES:
        again = partition(found.program, f"recompute={mode}").local
        assert again.num_ops() > found.program.num_ops()
        for port, a, b in zip(found.program.outputs, want, run_program(again, inputs), strict=True):
            assert not isinstance(a, Tensor) or torch.equal(a, b), port.name


@pytest.mark.parametrize("name", CNNS)
def test_vision_models_give_the_same_bits(name: str) -> None:
    check_bits(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in ZOO if each not in CNNS])
def test_models_of_the_zoo_give_the_same_bits(name: str) -> None:
    pytest.importorskip("transformers")
    check_bits(name)


def peak(line: str, name: str = "llama-tiny") -> int:
    return memory(partition(captured(name).program, line).local).peak_bytes


@pytest.mark.parametrize("name", ["llama-tiny", "gpt-tiny"])
def test_more_computed_again_is_less_held(name: str) -> None:
    held = [peak(f"recompute={mode}", name) for mode in ("none", "8", "full")]
    assert held[0] > held[1] > held[2]


def flops(program: Program) -> float:
    """FLOP of matrix products, calls expanded."""
    counts = program.counts()
    return sum(
        counts.get(block.name, 1) * cost(op).flops
        for block in program.all_blocks()
        for op in block.ops
        if op.name != "call" and cost(op).unit == "matmul"
    )


def test_full_runs_each_block_again_but_for_what_backward_does_not_need() -> None:
    """Forward is a third of a step's products; the last projection of a block is not run again."""
    program = captured().program
    again = partition(program, "recompute=full").local
    forward = sum(
        cost(op).flops * program.counts()["blocks_forward"]
        for op in program.block("blocks_forward").ops
        if cost(op).unit == "matmul"
    )
    more = flops(again) - flops(program)
    assert 0.75 * forward < more < forward


def test_weights_are_gathered_once_for_both_halves_of_backward() -> None:
    program = captured().program
    plain, again = (sent(partition(program, line)) for line in ("fsdp=2", "fsdp=2,recompute=full"))
    assert again["all_gather"] <= 1.05 * plain["all_gather"]
    assert again["reduce_scatter"] == plain["reduce_scatter"]


def test_the_model_s_flop_do_not_count_what_runs_twice() -> None:
    plan = partition(captured().program, "recompute=full")
    assert flops(plan.program) == flops(captured().program) < flops(plan.local)
    assert str(parse_line("dp=2,recompute=full,micro=2")) == "dp=2,micro=2,recompute=full"


def test_as_little_as_fits_is_computed_again() -> None:
    program = captured().program
    plain = partition(program)
    assert partition_within(program, "", memory(plain.local).peak_bytes) == plain
    sizes = {limit: peak(f"recompute={limit}") for limit in LIMITS}
    allowed = (max(sizes.values()) + min(sizes.values())) // 2
    fits = partition_within(program, "", allowed)
    assert fits.layout == "recompute=" + next(k for k in LIMITS if sizes[k] <= allowed)
    assert memory(fits.local).peak_bytes <= allowed


def test_what_software_holds_is_asked_of_plans_whose_tensors_fit() -> None:
    program = captured().program
    enough = memory(partition(program).local).peak_bytes
    tried: list[int] = []

    def fits(plan: Plan) -> bool:
        tried.append(plan.memory(in_place=True).peak_bytes)
        return tried[-1] <= enough - 1

    found = partition_within(program, "", enough, with_software=fits)
    assert found == partition_within(program, "", enough - 1)
    assert max(tried) <= enough
    with pytest.raises(DoesNotFit, match=r"on each chip, beside what software holds, .* allowed"):
        partition_within(program, "", enough, with_software=lambda _: False)


def test_where_all_of_it_again_needs_more_some_of_it_is_tried() -> None:
    program, line = captured().program, "pp=2,micro=2,offload=optimizer,schedule=zb"
    none, some, full = (
        partition(program, f"{line}{again}").memory(in_place=True).peak_bytes
        for again in ("", ",recompute=4", ",recompute=full")
    )
    assert some < none < full
    found = partition_within(program, line, some)
    assert found.layout == partition(program, f"{line},recompute=4").layout
    with pytest.raises(DoesNotFit, match=re.escape(f"needs {format_bytes(some)} on each chip")):
        partition_within(program, line, some - 1)


def test_what_fits_in_no_way_says_what_it_needs() -> None:
    with pytest.raises(DoesNotFit, match=r"llama-tiny needs .* on each chip, 1 MB are allowed"):
        partition_within(captured().program, "dp=2", 1e6)
    with pytest.raises(DoesNotFit, match="needs"):
        partition_within(captured().program, "recompute=none,offload=optimizer", 1e6)
