"""Programs of ops on vectors of bytes, so that sizes can be counted by eye."""

from dataclasses import replace

from hypothesis import strategies as st

from supernode.ir import CALL, Block, Op, Phase, Port, Program, Site, TensorType, Value, verify

PHASES: tuple[Phase, ...] = ("forward", "backward", "optimizer")


def is_view(op: Op) -> bool:
    return op.name == "view"


def vector(i: int, size: int) -> Value:
    return Value(i, TensorType("uint8", (size,)))


def op(name: str, out: Value, *args: Value, phase: Phase = "forward", module: str = "") -> Op:
    return Op(name=name, args=args, outputs=(out,), site=Site(module, phase))


def program(
    inputs: tuple[tuple[Value, Port], ...],
    ops: tuple[Op, ...],
    outputs: tuple[tuple[Value, int | None], ...] = (),
    blocks: tuple[Block, ...] = (),
) -> Program:
    main = Block(
        name="main",
        inputs=tuple(value for value, _ in inputs),
        ops=ops,
        outputs=tuple(value for value, _ in outputs),
    )
    return verify(
        Program(
            name="test",
            main=main,
            blocks=blocks,
            inputs=tuple(port for _, port in inputs),
            outputs=tuple(Port(name=f"out{i}", role="result") for i in range(len(outputs))),
            updates=tuple(source for _, source in outputs),
        )
    )


def param(name: str = "layers.0.weight") -> Port:
    return Port(name=name, role="param")


@st.composite
def bodies(draw: st.DrawFn, name: str, num_inputs: int) -> Block:
    """A straight line of ops, the first of which reads every input."""
    values = [vector(i, 2**i) for i in range(num_inputs)]
    ops: list[Op] = []
    for i in range(draw(st.integers(1, 6))):
        args = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)) if i else values[:]
        kind = draw(st.sampled_from(["f", "f", "view"]))
        size = args[0].type.size_bytes if kind == "view" else 100 * (i + 1)
        made = vector(len(values), size)
        values.append(made)
        ops.append(op(kind, made, *args, phase=draw(st.sampled_from(PHASES)), module=f"m.{i}"))
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
    return Block(
        name=name, inputs=tuple(values[:num_inputs]), ops=tuple(ops), outputs=tuple(outputs)
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Calls of two blocks in any order, feeding each other where sizes match.

    Each call is followed by an op that reads all its results: a call holds its results until it
    ends, where the same ops written out would let go at once of what nothing reads.
    """
    blocks = (draw(bodies("b0", 2)), draw(bodies("b1", 3)))
    inputs = tuple((vector(i, 2**i), param(f"layers.{i}.w")) for i in range(4))
    values = [value for value, _ in inputs]
    ops: list[Op] = []
    for _ in range(draw(st.integers(1, 5))):
        block = draw(st.sampled_from(blocks))
        args: list[Value] = []
        for wanted in block.inputs:
            same = [v for v in values if v.type == wanted.type]
            args.append(draw(st.sampled_from(same)))
        made = tuple(Value(len(values) + i, value.type) for i, value in enumerate(block.outputs))
        values += made
        ops.append(Op(name=CALL, block=block.name, args=tuple(args), outputs=made))
        after = vector(len(values), 7)
        values.append(after)
        ops.append(op("f", after, *made))
    updated = draw(st.sampled_from([v for v in values if v.type == values[0].type]))
    return program(inputs, tuple(ops), ((updated, 0), (values[-1], None)), blocks)


def inlined(original: Program) -> Program:
    """The same program with every call written out."""
    renamed: dict[int, Value] = {v.id: v for v in original.main.inputs}
    ops: list[Op] = []
    fresh = 1000

    def emit(inner: Op, names: dict[int, Value]) -> None:
        nonlocal fresh
        args = tuple(names[v.id] for v in inner.inputs)
        outputs = tuple(Value(fresh + i, v.type) for i, v in enumerate(inner.outputs))
        fresh += len(outputs)
        names.update(zip((v.id for v in inner.outputs), outputs, strict=True))
        ops.append(replace(inner, args=args, outputs=outputs))

    for outer in original.main.ops:
        if outer.name != CALL:
            emit(outer, renamed)
            continue
        block = original.block(outer.block)
        names = {v.id: renamed[a.id] for v, a in zip(block.inputs, outer.inputs, strict=True)}
        for inner in block.ops:
            emit(inner, names)
        for value, out in zip(block.outputs, outer.outputs, strict=True):
            renamed[out.id] = names[value.id]
    main = replace(
        original.main, ops=tuple(ops), outputs=tuple(renamed[v.id] for v in original.main.outputs)
    )
    return verify(replace(original, main=main, blocks=()))
