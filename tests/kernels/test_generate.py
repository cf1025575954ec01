"""Generated code equals the program run op by op, to the bit, wherever it writes."""

import traceback
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings

from emulate import run_program as run
from kernels.programs import Body, f32, program
from kernels.random_programs import programs
from supernode.errors import ChipFailed, UnknownOp
from supernode.ir import DType, HostType, Program, TensorType
from supernode.kernels import generate


def _inputs(program: Program) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(v.tensor.shape, generator=generator) for v in program.main.inputs]


@settings(max_examples=300)
@given(whole=programs())
def test_equals_the_program_run_op_by_op(whole: Program):
    inputs = _inputs(whole)
    kept = [x.clone() for x in inputs]
    want = run(whole, inputs)
    got = generate(whole)(inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True)), "an input was written"


@settings(max_examples=300)
@given(whole=programs())
def test_destinations_get_the_next_state_and_inputs_stay(whole: Program):
    inputs = _inputs(whole)
    kept = [x.clone() for x in inputs]
    want = run(whole, inputs)
    step = generate(whole)
    out = [
        torch.full_like(x, torch.nan) if i in step.destinations else None
        for i, x in enumerate(want)
    ]
    got = step(inputs, out)
    for i, (x, y) in enumerate(zip(got, want, strict=True)):
        assert torch.equal(x, y)
        if out[i] is not None:
            assert torch.equal(out[i], y)
    assert all(torch.equal(x, y) for x, y in zip(inputs, kept, strict=True)), "an input was written"


@settings(max_examples=50)
@given(whole=programs())
def test_traced_runs_the_same_and_times_every_op(whole: Program):
    inputs = _inputs(whole)
    want = run(whole, inputs)
    got, spans = generate(whole).traced(inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
    assert len(spans) == whole.num_ops()
    assert all(a.end_ns == b.start_ns for a, b in pairwise(spans))


def test_an_error_names_the_op_its_module_and_its_line():
    layer = Body("layer", f32(4, 4), f32(4, 4))
    y = layer("aten.mm", *layer.inputs)
    main = Body("main", f32(4, 4), f32(4, 4))
    (x,) = main.many("layer", main.inputs, (f32(4, 4),))
    step = generate(program(main.block(x), layer.block(y)))
    with pytest.raises(ChipFailed) as caught:
        step([torch.ones(4, 4), torch.ones(3, 3)])
    assert caught.value.wrong.startswith("aten.mm raised RuntimeError: mat1 and mat2 shapes")
    assert caught.value.where == "model.py:1, in layer.0, forward"
    assert caught.value.op == "aten.mm(f32[4, 4], f32[4, 4])"
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert any("torch_mm(v0, v1)  # model.py:1, in layer.0" in frame.line for frame in frames)


def test_a_negative_base_keeps_its_sign():
    main = Body("main", HostType())
    result = main("host.pow", -2.0, main.inputs[0], type=HostType())
    assert generate(program(main.block(result)))([4.0]) == (16.0,)


def test_host_numbers_are_python_floats():
    main = Body("main", HostType(), f32(2))
    rate = main("host.mul", main("host.pow", 0.9, main.inputs[0], type=HostType()), 2.0)
    scaled = main("aten.mul.Tensor", main.inputs[1], rate, type=f32(2))
    got, number = generate(program(main.block(scaled, rate)))([3.0, torch.ones(2)])
    assert number == 0.9**3.0 * 2.0
    assert torch.equal(got, torch.ones(2) * number)


def test_lists_dtypes_formats_and_missing_results():
    main = Body("main", f32(1, 4, 4), f32(1, 4, 2, 2))
    x, w = main.inputs
    a, b = main.many("aten.split.Tensor", (x, 2, 1), (f32(1, 2, 4),) * 2)
    (whole,) = main.many("aten.split.Tensor", (x, 4, 1), (x.type,))
    half = main("aten._to_copy", a, type=TensorType("float16", (1, 2, 4)), dtype=DType("float16"))
    dense = main("aten.clone", b, memory_format="torch.contiguous_format")
    rest = (None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (False, True, False))
    grad = main("aten.expand", main("aten.unsqueeze", whole, 0, type=f32(1, 1, 4, 4)), (1, 1, 4, 4))
    args = (grad, main("aten.unsqueeze", x, 0, type=f32(1, 1, 4, 4)), w, *rest)
    (dw,) = main.many("aten.convolution_backward", args, (f32(1, 1, 1, 1),))
    step = generate(program(main.block(half, dense, dw)))
    one = torch.arange(16.0).view(1, 4, 4)
    got = step([one, torch.ones(1, 1, 1, 1)])
    assert got[0].dtype == torch.float16
    assert torch.equal(got[1], one[:, 2:])
    assert got[2].item() == (one**2).sum().item()


def test_infinities_and_nan_are_constants_too():
    main = Body("main", f32(2))
    x = main("aten.mul.Tensor", main.inputs[0], float("-inf"))
    y = main("aten.add.Tensor", x, float("nan"))
    got = generate(program(main.block(x, y)))([torch.ones(2)])
    assert torch.isneginf(got[0]).all()
    assert got[1].isnan().all()


def test_plain_outputs_can_take_part_in_autograd():
    main = Body("main", f32(2))
    (x,) = generate(program(main.block(main("aten.neg", main.inputs[0]))))([torch.ones(2)])
    x.requires_grad_().square().sum().backward()
    assert torch.equal(x.grad, 2 * x)


@pytest.mark.parametrize("name", ["host.nothing", "fabric.nothing", "local.nothing"])
def test_unknown_ops_of_our_own_are_refused(name: str):
    main = Body("main", f32(2))
    x = main(name, (main.inputs[0],), "dp", type=f32(2))
    with pytest.raises(UnknownOp, match="nothing"):
        generate(program(main.block(x)))
