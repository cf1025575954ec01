from hypothesis import given
from hypothesis import strategies as st

from supernode.ir import CALL, Block, Op, Port, Program, Site, TensorType, Value, fold, verify
from supernode.ir.program import map_values
from supernode.ir.runs import Run, find_run


def layered(layers: int, width: int = 6, before: int = 2, after: int = 2) -> Program:
    """A chain with one weight a layer; every layer also reads the step's first value."""
    type_ = TensorType("float32", (4, 4))
    inputs = [Value(i, type_) for i in range(layers + 1)]
    ops: list[Op] = []
    x = inputs[0]
    next_id = len(inputs)

    def emit(name: str, *args: Value, module: str = "") -> Value:
        nonlocal next_id
        out = Value(next_id, type_)
        next_id += 1
        ops.append(Op(name=name, args=args, outputs=(out,), site=Site(module)))
        return out

    for _ in range(before):
        x = emit("aten.neg", x)
    first = x
    for layer in range(layers):
        module = f"layers.{layer}"
        y = emit("aten.mm", x, inputs[layer + 1], module=module)
        for _ in range(width - 2):
            y = emit("aten.relu", y, module=module)
        x = emit("aten.add.Tensor", y, first, module=module)
    for _ in range(after):
        x = emit("aten.exp", x)
    main = Block(name="main", inputs=tuple(inputs), ops=tuple(ops), outputs=(x,))
    names = ["x"] + [f"layers.{i}.weight" for i in range(layers)]
    ports = tuple(Port(name=name, role="param") for name in names)
    return verify(
        Program(
            name="layered",
            main=main,
            inputs=ports,
            outputs=(Port(name="result", role="result"),),
            updates=(None,),
        )
    )


def expand(program: Program) -> list[Op]:
    """The ops with calls written out, values numbered as in the caller."""
    flat: list[Op] = []
    next_id = 1_000_000
    for op in program.main.ops:
        if op.name != CALL:
            flat.append(op)
            continue
        block = program.block(op.block)
        values = dict(zip((v.id for v in block.inputs), op.inputs, strict=True))
        values |= dict(zip((v.id for v in block.outputs), op.outputs, strict=True))
        for inner in block.ops:
            for value in inner.outputs:
                values.setdefault(value.id, Value(next_id + value.id, value.type))
            args = map_values(inner.args, values)
            assert isinstance(args, tuple)
            outputs = tuple(values[value.id] for value in inner.outputs)
            flat.append(Op(name=inner.name, args=args, outputs=outputs, site=inner.site))
        next_id += 1_000_000
    return flat


def wiring(ops: list[Op]) -> list[tuple[str, list[int]]]:
    numbers: dict[int, int] = {}
    out = []
    for op in ops:
        inputs = [numbers.setdefault(value.id, len(numbers)) for value in op.inputs]
        out.append((op.name, inputs))
        for value in op.outputs:
            numbers.setdefault(value.id, len(numbers))
    return out


@given(layers=st.integers(1, 9), width=st.integers(3, 9), before=st.integers(0, 3))
def test_folding_keeps_every_op_and_wire(layers: int, width: int, before: int) -> None:
    program = layered(layers, width, before)
    folded = fold(program)
    assert wiring(expand(folded)) == wiring(list(program.main.ops))
    assert folded.num_ops() == len(program.main.ops)


def test_layers_become_one_block() -> None:
    folded = fold(layered(12))
    (block,) = folded.blocks
    assert folded.counts() == {block.name: 12}
    assert len(block.ops) == 6
    assert block.ops[0].site.module == "layers.*"


def test_a_repetition_that_is_wired_differently_stays_outside() -> None:
    program = layered(4)
    ops = list(program.main.ops)
    # The last layer's add reads its own product twice.
    last_add = max(i for i, op in enumerate(ops) if op.name == "aten.add.Tensor")
    y = ops[last_add].inputs[0]
    ops[last_add] = Op(name="aten.add.Tensor", args=(y, y), outputs=ops[last_add].outputs)
    main = Block(
        name="main", inputs=program.main.inputs, ops=tuple(ops), outputs=program.main.outputs
    )
    changed = Program(
        name="changed", main=main, inputs=program.inputs, outputs=program.outputs, updates=(None,)
    )
    folded = fold(changed)
    assert list(folded.counts().values()) == [3]
    assert wiring(expand(folded)) == wiring(ops)


def test_find_run_prefers_what_saves_most_then_the_shortest_period() -> None:
    assert find_run("abcdabcd" * 2 + "z") == Run(0, 4, 4)
    assert find_run("abcdefgh") is None
