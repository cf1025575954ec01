"""A precision is a rule of costs: linear layers alone, at the narrow rate and with narrow bytes."""

import pytest
import torch
from torch import nn

from supernode import ops
from supernode.capture import capture
from supernode.errors import UnknownName
from supernode.ir import Op, Program
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.simulate import cost_in, simulate


def program(rows: int = 4096) -> Program:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4096, 4096, bias=False), nn.GELU())
        model.to(torch.bfloat16)
        x = torch.empty(rows, 4096, dtype=torch.bfloat16)
    return capture(lambda x: model(x), model, (), (x,)).program


def matmul(rows: int = 4096) -> Op:
    return next(op for op in program(rows).main.ops if op.name == "aten.mm")


@pytest.mark.parametrize("name", ["", "bf16", "fp16"])
def test_as_captured_nothing_changes(name: str):
    assert cost_in(name) is ops.cost


def test_float8_halves_what_a_linear_layer_reads_and_keeps_the_rest():
    op = matmul()
    full, narrow = ops.cost(op), cost_in("fp8")(op)
    assert narrow.dtype == "float8"
    assert narrow.flops == full.flops
    assert narrow.bytes_read == full.bytes_read / 2
    assert narrow.bytes_written == full.bytes_written
    others = [op for op in program().main.ops if op.name != "aten.mm"]
    assert all(cost_in("fp8")(op) == ops.cost(op) for op in others)


def test_four_bit_weights_of_int4_are_multiplied_in_bfloat16():
    op = matmul(rows=1)
    narrow = cost_in("int4")(op)
    assert narrow.dtype == "bfloat16"
    assert narrow.bytes_read == pytest.approx(4096 * 4096 * 0.53125 + 4096 * 2)


def test_a_step_in_float8_is_faster_where_the_chip_has_it():
    for name, faster in (("hgx-h100", True), ("hgx-a100", False)):
        plan, machine = partition(program(), ""), load_machine(name)
        plain = simulate(plan, machine).critical_s["matmul"]
        narrow = simulate(plan, machine, cost=cost_in("fp8")).critical_s["matmul"]
        assert (narrow < 0.7 * plain) == faster
        assert narrow <= plain


def test_an_unknown_precision_names_the_nearest():
    with pytest.raises(UnknownName, match="unknown precision 'fp6'") as caught:
        cost_in("fp6")
    assert "fp8" in caught.value.fix


def test_four_bit_weights_of_gpt_oss_are_those_of_its_experts_alone():
    weights, rows = torch.empty(4, 64, 64, device="meta"), torch.empty(32, 64, device="meta")
    ends = torch.empty(4, dtype=torch.int32, device="meta")
    x, w = rows.bfloat16(), weights.bfloat16()
    found = capture(lambda x, w, e: nn.functional.grouped_mm(x, w, offs=e), None, (), (x, w, ends))
    grouped = next(op for op in found.program.main.ops if op.name == "aten._grouped_mm")
    full = ops.cost(grouped)
    for name, dtype, each in (("mxfp4", "bfloat16", 2.0), ("mxfp4-mxfp8", "float8", 1.0)):
        assert cost_in(name)(matmul()) == ops.cost(matmul())
        narrow = cost_in(name)(grouped)
        assert narrow.dtype == dtype
        saved = 32 * 64 * (2 - each) + 4 * 64 * 64 * (2 - 0.53125)
        assert narrow.bytes_read == pytest.approx(full.bytes_read - saved)
