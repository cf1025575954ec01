"""FLOP are those torch counts; bytes are no fewer than an op has to move, and no more than all."""

import pytest
import torch
from torch import Tensor

from ops.calls import Sample, execute
from ops.flops import counter
from ops.samples import f, samples
from supernode.ir import TensorType
from supernode.ops import Cost, cost, row, table
from supernode.ops.row import traffic

IN_PLACE = ("aten.index_copy",)
"""What writes some rows of its first input, which is not copied for that."""
MATMULS = sorted(name for name in table() if cost(samples()[name][0].op).unit == "matmul")


def test_the_matrix_unit_does_the_contractions():
    assert MATMULS == [
        "aten._grouped_mm",
        "aten._scaled_dot_product_flash_attention_for_cpu",
        "aten._scaled_dot_product_flash_attention_for_cpu_backward",
        "aten.addmm",
        "aten.baddbmm",
        "aten.bmm",
        "aten.convolution",
        "aten.convolution_backward",
        "aten.mm",
        "local.causal_attention",
        "local.causal_attention_backward",
    ]


@pytest.mark.parametrize("name", MATMULS)
def test_flops_of_a_contraction_are_those_torch_counts(name: str):
    for sample in samples()[name]:
        if name == "aten.convolution_backward" and sample.op.args[9] != 1:
            continue
        with counter() as torch_counts:
            execute(sample.op, sample.inputs)
        assert cost(sample.op).flops == torch_counts.get_total_flops(), str(sample)


def test_torch_counts_the_weights_of_a_grouped_convolution_once_per_group_too_often():
    for sample in samples()["aten.convolution_backward"]:
        groups, (read, weight, _) = sample.op.args[9], sample.op.args[10]
        with counter() as torch_counts:
            execute(sample.op, sample.inputs)
        spent = cost(sample.op).flops
        each = spent / (read + weight)
        assert torch_counts.get_total_flops() == each * (read + weight * groups), str(sample)


def test_torch_counts_nothing_for_attention_on_a_cpu_by_itself():
    q = f(2, 4, 8, 4)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as plain:
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)
    assert plain.get_total_flops() == 0  # the day this changes, ops/flops.py can go


@pytest.mark.parametrize("name", sorted(table()))
def test_bytes_are_between_what_matters_and_everything(name: str):
    for sample in samples()[name]:
        spent = cost(sample.op)
        if row(sample.op).view:
            assert spent == Cost(), str(sample)
            continue
        read, written = traffic(sample.op)
        if name in IN_PLACE:
            assert spent.bytes_written == sample.op.inputs[-1].type.size_bytes, str(sample)
            continue
        assert spent.bytes_written == written, str(sample)
        assert _read_at_least(sample) <= spent.bytes_read <= read, str(sample)


def _read_at_least(sample: Sample) -> int:
    """The bytes of input elements that change some output when they change."""
    seen: set[int] = set()
    total = 0
    for position, (x, value) in enumerate(zip(sample.inputs, sample.op.inputs, strict=True)):
        if isinstance(x, Tensor) and x.is_floating_point() and value.id not in seen:
            seen.add(value.id)
            total += _matters(sample, position) * x.element_size()
    return total


def _matters(sample: Sample, position: int) -> int:
    x = sample.inputs[position]
    return sum(_changes(sample, position, index) for index in range(x.numel()))


def _changes(sample: Sample, position: int, index: int) -> bool:
    inputs = list(sample.inputs)
    changed = inputs[position].clone(memory_format=torch.contiguous_format)
    changed.view(-1)[index] += 0.25
    same = sample.op.inputs[position].id
    for i, value in enumerate(sample.op.inputs):
        if value.id == same:
            inputs[i] = changed
    if "empty" in sample.op.name:
        return False
    results = execute(sample.op, inputs)
    return not all(map(torch.equal, results, sample.outputs))


@pytest.mark.parametrize("name", sorted(table()))
def test_the_dtype_of_a_cost_is_one_of_the_op(name: str):
    for sample in samples()[name]:
        spent = cost(sample.op)
        types = [v.type for v in (*sample.op.inputs, *sample.op.outputs)]
        dtypes = {type_.dtype for type_ in types if isinstance(type_, TensorType)}
        assert spent.unit == "none" or spent.dtype in dtypes


def test_work_on_host_numbers_costs_the_chip_nothing():
    sample = samples()["aten.mul.Tensor"][0]
    assert cost(sample.op).flops > 0
    host = type(sample.op)(name="host.mul", args=(2.0, 3.0), outputs=())
    assert cost(host) == Cost()
