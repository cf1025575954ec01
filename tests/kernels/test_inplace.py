"""Which ops write where: read off the generated text, and the values still right."""

import weakref

import torch

from kernels.programs import Body, f32, program
from supernode.ir import Program, TensorType
from supernode.kernels import generate

SQUARE = f32(4, 4)


def _lines(source: str) -> list[str]:
    """The statements with an assignment, without their comments."""
    return [line.split("  #")[0].strip() for line in source.splitlines() if " = " in line]


def _text(program: Program, *, into: bool = False) -> list[str]:
    return _lines(generate(program).code(into=into, traced=False).source)


def test_a_dying_temporary_is_overwritten_and_an_input_is_not():
    main = Body("main", SQUARE, SQUARE)
    a, b = main.inputs
    x = main("aten.mul.Tensor", a, b)
    y = main("aten.add.Tensor", x, b)
    assert _text(program(main.block(y)))[1:] == ["v2 = torch_mul(v0, v1)", "v3 = v2.add_(v1)"]


def test_what_a_view_still_shows_is_not_overwritten():
    for view in ("aten.t", "aten._unsafe_view"):
        main = Body("main", SQUARE)
        x = main("aten.neg", main.inputs[0])
        rest = ((4, 4),) if view == "aten._unsafe_view" else ()
        seen = main(view, x, *rest)
        y = main("aten.exp", x)
        z = main("aten.add.Tensor", seen, y)
        assert "v3 = torch_exp(v1)" in _text(program(main.block(z)))


def test_an_operand_that_shows_the_same_memory_forbids_overwriting():
    main = Body("main", SQUARE)
    x = main("aten.neg", main.inputs[0])
    y = main("aten.add.Tensor", x, main("aten.t", x))
    step = generate(program(main.block(y)))
    assert "torch_add(v1, v2)" in step.source
    a = torch.randn(4, 4)
    assert torch.equal(step([a])[0], -a + (-a).t())


def test_what_may_be_an_operand_is_not_overwritten():
    main = Body("main", SQUARE)
    # Outside training, dropout hands back its operand and its schema does not say so.
    x = main("aten.dropout", main.inputs[0], 0.5, False)
    y = main("aten.exp", x)
    step = generate(program(main.block(y)))
    a = torch.zeros(4, 4)
    step([a])
    assert a.abs().sum() == 0


def test_another_dtype_is_never_written_over():
    main = Body("main", SQUARE)
    x = main("aten.gt.Scalar", main.inputs[0], 0.0, type=TensorType("bool", (4, 4)))
    y = main("aten.mul.Tensor", x, main.inputs[0], type=SQUARE)
    assert "torch_mul(v1, v0)" in generate(program(main.block(y))).source


def test_adamw_writes_every_new_state_into_its_destination():
    main = Body("main", SQUARE, SQUARE, SQUARE, SQUARE)
    p, m, v, g = main.inputs
    m2 = main("aten.lerp.Scalar", m, g, 0.1)
    scaled = main("aten.mul.Tensor", v, 0.999)
    v2 = main("aten.addcmul", scaled, g, g, value=0.001)
    decayed = main("aten.mul.Tensor", p, 0.99)
    p2 = main("aten.sub.Tensor", decayed, g)
    text = _text(program(main.block(p2, m2, v2), updates=(0, 1, 2)), into=True)
    assert text[1:] == [
        "v4 = torch_lerp(v1, v3, 0.1, out=out[1])",
        "v5 = torch_mul(v2, 0.999, out=out[2])",
        "v6 = v5.addcmul_(v3, v3, value=0.001)",
        "v7 = torch_mul(v0, 0.99, out=out[0])",
        "v8 = v7.sub_(v3)",
    ]


def test_a_block_gets_the_destinations_and_may_overwrite_what_no_caller_needs():
    layer = Body("layer", SQUARE, SQUARE)
    x, w = layer.inputs
    y = layer("aten.mul.Tensor", x, w)
    w2 = layer("aten.sub.Tensor", w, y)
    main = Body("main", SQUARE, SQUARE, SQUARE)
    start = main("aten.neg", main.inputs[2])
    y1, new1 = main.many("layer", (start, main.inputs[0]), (SQUARE, SQUARE))
    y2, new2 = main.many("layer", (y1, main.inputs[1]), (SQUARE, SQUARE))
    whole = program(main.block(new1, new2, y2), layer.block(y, w2), updates=(0, 1, None))
    step = generate(whole)
    text = step.code(into=True, traced=False).source
    assert "v2 = v0.mul_(v1)" in text
    assert "torch_sub(v1, v2, out=out[1])" in text
    assert "block_layer(args, (None, out[0],))" in text
    a, b, c = (torch.randn(4, 4) for _ in range(3))
    out = [torch.empty(4, 4), torch.empty(4, 4), None]
    got = step([a, b, c], out)
    y = -c * a
    assert torch.equal(got[0], a - y)
    assert torch.equal(got[1], b - y * b)
    assert got[0] is out[0]


def test_a_second_reader_sees_the_op_not_the_destination():
    main = Body("main", SQUARE)
    x = main("aten.mul.Tensor", main("aten.t", main.inputs[0]), 2.0)
    y = main("aten.sum", x, type=f32())
    text = _text(program(main.block(y, x), updates=(None, 0)), into=True)
    assert text[2:] == [
        "v2 = torch_mul(v1, 2.0)",
        "v3 = torch_sum(v2)",
        "v2 = out[1].copy_(v2)",
    ]


def test_a_state_left_alone_needs_no_destination():
    main = Body("main", SQUARE)
    x = main("aten.neg", main.inputs[0])
    assert generate(program(main.block(x, main.inputs[0]), updates=(None, 0))).destinations == ()


def test_a_temporary_dies_at_its_last_use():
    main = Body("main", SQUARE)
    x = main.inputs[0]
    for _ in range(20):
        x = main("aten.cumsum", x, 0)
    code = generate(program(main.block(main("aten.sum", x, type=f32())))).code(
        into=False, traced=False
    )
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def cumsum(x: torch.Tensor, dim: int) -> torch.Tensor:
        result = x.cumsum(dim)
        made.append(weakref.ref(result))
        alive.append(sum(ref() is not None for ref in made))
        return result

    code.run.__globals__["torch_cumsum"] = cumsum
    code.run([torch.zeros(4, 4)], None)
    assert len(made) == 20
    assert max(alive) == 2
