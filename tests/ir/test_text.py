"""Printing, verifying and saving Programs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs import Builder
from supernode.errors import VerifyError
from supernode.ir import (
    Block,
    DType,
    HostType,
    Op,
    Port,
    Program,
    TensorType,
    Value,
    fold,
    from_json,
    to_json,
    verify,
)


def mlp(layers: int = 3) -> Program:
    """A chain of layers with one update, folded."""
    b = Builder()
    x = b.input("x", "arg", (8, 16))
    weights = [b.input(f"layers.{i}.weight", "param", (16, 16)) for i in range(layers)]
    for w in weights:
        y = b.op("aten.mm", x, b.op("aten.t", w))
        x = b.op("aten.add.Tensor", x, b.op("aten.relu", y))
        x = b.op("aten.mul.Scalar", x, 0.5)
    b.result(b.op("aten.sum", x))
    b.phase("optimizer")
    b.update(weights[0], b.op("aten.mul.Scalar", weights[0], 0.9))
    return fold(b.build("mlp"))


def test_a_printed_program(golden) -> None:
    golden("program_mlp.txt", str(mlp()) + "\n")


@given(layers=st.integers(1, 5))
def test_json_round_trip(layers: int) -> None:
    program = mlp(layers)
    assert from_json(to_json(program)) == program


@given(st.floats())
def test_json_keeps_every_float(number: float) -> None:
    x = Value(0, TensorType("float32", ()))
    y = Value(1, TensorType("bfloat16", ()))
    h = Value(2, HostType())
    cast = Op(name="aten._to_copy", args=(x,), kwargs=(("dtype", DType("bfloat16")),), outputs=(y,))
    host = Op(name="host.mul", args=(number, (1, None, "text", True)), outputs=(h,))
    main = Block(name="main", inputs=(x,), ops=(cast, host), outputs=(y,))
    port = Port(name="x", role="arg")
    program = Program(name="p", main=main, inputs=(port,), outputs=(port,), updates=(None,))
    back = from_json(to_json(program)).main.ops[1].args
    assert back[1] == (1, None, "text", True)
    assert isinstance(back[0], float)
    assert (math.isnan(number) and math.isnan(back[0])) or back[0].hex() == number.hex()


def broken(**changes: object) -> Program:
    good = mlp()
    fields = {name: getattr(good, name) for name in Program.__dataclass_fields__}
    return Program(**(fields | changes))


def main_with(*ops: Op, outputs: tuple[Value, ...] = ()) -> Program:
    x = Value(0, TensorType("float32", (4,)))
    main = Block(name="main", inputs=(x,), ops=ops, outputs=outputs)
    ports = tuple(Port(name="result", role="result") for _ in outputs)
    return Program(
        name="p",
        main=main,
        inputs=(Port(name="x", role="arg"),),
        outputs=ports,
        updates=(None,) * len(outputs),
    )


F4 = TensorType("float32", (4,))
BAD = {
    "used before": main_with(Op(name="aten.neg", args=(Value(9, F4),), outputs=(Value(1, F4),))),
    "defined twice": main_with(Op(name="aten.neg", args=(Value(0, F4),), outputs=(Value(0, F4),))),
    "where it is used": main_with(
        Op(
            name="aten.neg",
            args=(Value(0, TensorType("float32", (5,))),),
            outputs=(Value(1, F4),),
        )
    ),
    "does not define": main_with(outputs=(Value(7, F4),)),
    "unknown block": main_with(
        Op(name="call", block="none", args=(Value(0, F4),), outputs=(Value(1, F4),))
    ),
    "a port is missing": broken(inputs=()),
    "must name an input": broken(updates=()),
    "can't replace": broken(updates=(0, 1)),
    "does not exist": broken(updates=(None, 99)),
    "one name": broken(blocks=mlp().blocks * 2),
    "differ in type": broken(
        blocks=tuple(
            Block(name=b.name, inputs=b.inputs[1:], ops=(), outputs=()) for b in mlp().blocks
        )
    ),
}


@pytest.mark.parametrize("rule", BAD)
def test_the_verifier_names_the_rule(rule: str) -> None:
    with pytest.raises(VerifyError, match=rule):
        verify(BAD[rule])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "supernode-program-1"}', to_json(mlp())[:-40]]
)
def test_damaged_documents_are_refused(text: str) -> None:
    with pytest.raises(VerifyError):
        from_json(text)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(VerifyError, match="unknown dtype 'float7'"):
        TensorType("float7", ())
