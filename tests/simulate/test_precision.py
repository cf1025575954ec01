"""A precision is a rule of costs: linear layers alone, at the narrow rate and with narrow bytes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from simulate.steps import trained
from supernode import ops
from supernode.capture import capture
from supernode.errors import UnknownName
from supernode.ir import Op, Program
from supernode.machine import load_machine
from supernode.ops import Cost, Product
from supernode.partition import partition
from supernode.simulate import cost_in, is_training, op_time, simulate
from supernode.simulate.op_time import fit_for


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


def grouped_op() -> Op:
    weights, rows = torch.empty(4, 64, 64, device="meta"), torch.empty(32, 64, device="meta")
    ends = torch.empty(4, dtype=torch.int32, device="meta")
    x, w = rows.bfloat16(), weights.bfloat16()
    found = capture(lambda x, w, e: nn.functional.grouped_mm(x, w, offs=e), None, (), (x, w, ends))
    return next(op for op in found.program.main.ops if op.name == "aten._grouped_mm")


def test_four_bit_weights_of_gpt_oss_are_those_of_its_experts_alone():
    grouped = grouped_op()
    full = ops.cost(grouped)
    for name, dtype, each in (("mxfp4", "bfloat16", 2.0), ("mxfp4-mxfp8", "float8", 1.0)):
        assert cost_in(name)(matmul()) == ops.cost(matmul())
        narrow = cost_in(name)(grouped)
        assert narrow.dtype == dtype
        saved = 32 * 64 * (2 - each) + 4 * 64 * 64 * (2 - 0.53125)
        assert narrow.bytes_read == pytest.approx(full.bytes_read - saved)


@pytest.mark.parametrize("name", ["hgx-h100", "hgx-b200"])
def test_experts_that_widen_their_weights_run_by_kernels_measured_for_themselves(name: str):
    chip = load_machine(name).chip
    wide = fit_for(cost_in("fp8")(grouped_op()), chip)
    assert wide is chip.kernels["grouped.float8"]
    for precision, kernels in (("mxfp4-mxfp8", "mxfp4"), ("int4-experts", "int4")):
        assert fit_for(cost_in(precision)(grouped_op()), chip) is chip.kernels[f"grouped.{kernels}"]
    int4 = cost_in("int4")(matmul())  # dense ones were not measured apart
    assert fit_for(int4, chip) is chip.kernels["matmul.bfloat16"]


def test_where_no_kernel_for_a_format_was_measured_that_of_what_multiplies_stands_for_it():
    chip = load_machine("hgx-a100").chip
    assert fit_for(cost_in("mxfp4")(grouped_op()), chip) is chip.kernel("grouped", "bfloat16")


def latents(tokens: int = 1) -> Op:
    """All 16 heads of 4 sequences read one latent of 576 a token."""
    q, c = (torch.empty(4, n, t, 576, device="meta") for n, t in ((16, tokens), (1, 2048)))
    given = (q.bfloat16(), c.bfloat16())
    sdpa = nn.functional.scaled_dot_product_attention
    found = capture(lambda q, c: sdpa(q, c, c, enable_gqa=True), None, (), given).program
    return next(op for op in found.main.ops if "attention" in op.name)


def test_a_cache_in_eight_bits_is_read_in_half_the_bytes_by_kernels_of_its_own():
    op = latents()
    full, narrow = ops.cost(op), cost_in("bf16", "fp8")(op)
    assert full.bytes_read - narrow.bytes_read == 4 * 2048 * 576
    assert (narrow.dtype, narrow.flops) == ("float8", full.flops)
    chip = load_machine("hgx-h200").chip
    assert fit_for(full, chip) is chip.kernels["latent.bfloat16"]
    assert fit_for(narrow, chip) is chip.kernels["latent.float8"]
    assert op_time(narrow, chip).time_s < op_time(full, chip).time_s
    many = latents(tokens=64)  # a prompt reads what it has just computed
    assert cost_in("bf16", "fp8")(many) == ops.cost(many)


def test_where_no_kernel_for_a_narrow_cache_was_measured_the_wide_ones_stand_for_it():
    chip = load_machine("cloudmatrix384@die").chip
    assert fit_for(cost_in("", "fp8")(latents()), chip) is chip.kernels["decode.bfloat16"]


def test_a_cast_of_its_own_takes_a_kernel_more():
    op = matmul(rows=16)
    chip = load_machine("hgx-h100").chip
    fused, own = (op_time(cost_in(name)(op), chip).time_s for name in ("fp8", "fp8-cast"))
    stream = Cost(bytes_read=16 * 4096 * 2.0, bytes_written=16 * 4096.0, unit="vector")
    assert own - fused == pytest.approx(op_time(stream, chip).time_s)


def test_four_bits_of_mlps_leave_attention_as_captured():
    op = matmul()
    inside = replace(op, site=replace(op.site, module="blocks.3.attention.query"))
    assert cost_in("fp4-mlp")(inside) == ops.cost(op)
    assert cost_in("fp4-mlp")(op) == cost_in("fp4")(op)


def test_an_unknown_cache_names_the_nearest():
    with pytest.raises(UnknownName, match="no cache is kept in 'fp7'") as caught:
        cost_in("fp8", "fp7")
    assert "fp8" in caught.value.fix


ROWS = 32768


def two_layers() -> Program:
    """A step that trains two linear layers, the last of them a head."""
    with torch.device("meta"):
        model = nn.Sequential()
        model.add_module("up", nn.Linear(1024, 4096, bias=False))
        model.add_module("lm_head", nn.Linear(4096, 1024, bias=False))
        model.to(torch.bfloat16)
        x = torch.empty(ROWS, 1024, dtype=torch.bfloat16)
    return trained(model, x)


CASTS = {"fp8": (4.0, 3.0), "fp8-cs": (6.0, 5.0), "mxfp8": (4.0, 4.0), "nvfp4": (5.125, 5.125)}
"""Bytes that a number's cast reads and writes, with a copy for each order and in either order."""


@pytest.mark.parametrize("on", ["hgx-h100", "hgx-b200"])
@pytest.mark.parametrize("name", CASTS)
def test_training_casts_activations_and_gradients_once_but_those_of_the_head(name: str, on: str):
    program, chip = two_layers(), load_machine(on).chip
    each, written = CASTS[name]
    assert is_training(program)
    products = [op for op in program.main.ops if op.name == "aten.mm"]
    costs = [cost_in(name, trains=True)(op) for op in products]
    shapes = [cost.shape for cost in costs if isinstance(cost.shape, Product)]
    inputs, gradients = ROWS * 1024, ROWS * 4096
    assert sum(shape.cast_bytes for shape in shapes) == each * inputs
    assert sum(shape.gradient_cast_bytes for shape in shapes) == each * gradients
    head = [cost for op, cost in zip(products, costs, strict=True) if "head" in op.site.module]
    assert [cost.dtype for cost in head] == ["bfloat16"] * 3
    longer_s = sum(op_time(cost, chip).time_s for cost in costs)
    longer_s -= sum(op_time(_uncast(cost), chip).time_s for cost in costs)
    # Two kernels, which move so much at about the rate of the chip's memory: a copy less where one
    # scale serves a tensor and products read it in either order.
    moved = (written if chip.either_order else each) * (inputs + gradients)
    wire_s = moved / chip.memory.bandwidth_bytes_per_s.value
    assert wire_s < longer_s < 1.4 * wire_s + 2 * 5e-6


def _uncast(cost: Cost) -> Cost:
    assert isinstance(cost.shape, Product)
    return replace(cost, shape=replace(cost.shape, cast_bytes=0.0, gradient_cast_bytes=0.0))
