"""Random programs for hypothesis: elementwise ops, views, reductions, matmuls, repeated blocks."""

from hypothesis import strategies as st

from supernode.ir import Arg, Block, Op, Port, Program, TensorType, Value, verify

SIZE = 4
SQUARE = TensorType("float32", (SIZE, SIZE))
FLAT = TensorType("float32", (SIZE * SIZE,))

# name -> how many tensor operands, what follows them, keyword arguments
SAME_SHAPE: tuple[tuple[str, int, tuple[Arg, ...], tuple[tuple[str, Arg], ...]], ...] = (
    ("aten.add.Tensor", 2, (), (("alpha", 0.5),)),
    ("aten.mul.Tensor", 2, (), ()),
    ("aten.mul.Tensor", 1, (0.75,), ()),
    ("aten.sub.Tensor", 2, (), ()),
    ("aten.neg", 1, (), ()),
    ("aten.sigmoid", 1, (), ()),
    ("aten.tanh", 1, (), ()),
    ("aten.relu", 1, (), ()),
    ("aten.lerp.Scalar", 2, (0.25,), ()),
    ("aten.addcmul", 3, (), (("value", -0.5),)),
    ("aten.clamp", 1, (-1.0, 1.0), ()),
    ("aten.clone", 1, (), ()),
    ("aten.alias", 1, (), ()),
    ("aten.detach", 1, (), ()),
)
SQUARE_ONLY = (
    ("aten.mm", 2, (), ()),
    ("aten.t", 1, (), ()),
    ("aten.transpose.int", 1, (0, 1), ()),
    ("aten._softmax", 1, (1, False), ()),
)
RESHAPES = {SQUARE: ((SIZE * SIZE,), FLAT), FLAT: ((SIZE, SIZE), SQUARE)}


class Builder:
    """A block in the making."""

    def __init__(self, types: list[TensorType]) -> None:
        self.values = [Value(i, type) for i, type in enumerate(types)]
        self.inputs = tuple(self.values)
        self.ops: list[Op] = []

    def add(
        self, name: str, args: tuple[Arg, ...], types: list[TensorType], **more: object
    ) -> None:
        """Appends an op with new outputs."""
        outputs = tuple(Value(len(self.values) + i, type) for i, type in enumerate(types))
        self.ops.append(Op(name=name, args=args, outputs=outputs, **more))  # type: ignore[arg-type]
        self.values += outputs

    def of(self, type: TensorType) -> list[Value]:
        """The values of a type so far, the latest first, so that short examples make chains."""
        return [value for value in reversed(self.values) if value.type == type]


@st.composite
def _grown(draw: st.DrawFn, builder: Builder, most: int) -> Builder:
    for _ in range(draw(st.integers(1, most))):
        type = draw(st.sampled_from([t for t in (SQUARE, FLAT) if builder.of(t)]))
        kind = draw(st.sampled_from(("same", "same", "same", "square", "reshape")))
        if kind == "reshape" or (kind == "square" and type != SQUARE):
            shape, after = RESHAPES[type]
            name = draw(st.sampled_from(("aten.view", "aten._unsafe_view")))
            builder.add(name, (draw(st.sampled_from(builder.of(type))), shape), [after])
            continue
        name, count, rest, kwargs = draw(
            st.sampled_from(SAME_SHAPE if kind == "same" else SQUARE_ONLY)
        )
        operands = tuple(draw(st.sampled_from(builder.of(type))) for _ in range(count))
        builder.add(name, (*operands, *rest), [type], kwargs=kwargs)
    return builder


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A legal program with up to two blocks, called up to three times each; some outputs update."""
    blocks: list[Block] = []
    for name in draw(st.sampled_from((("a",), ("a", "b"), ()))):
        inside = draw(_grown(Builder([SQUARE, SQUARE]), 6))
        squares = inside.of(SQUARE)
        outputs = tuple(draw(st.lists(st.sampled_from(squares), min_size=1, max_size=3)))
        blocks.append(
            Block(name=name, inputs=inside.inputs, ops=tuple(inside.ops), outputs=outputs)
        )
    main = draw(_grown(Builder([SQUARE, SQUARE, FLAT]), 4))
    for _ in range(draw(st.integers(0, 3)) if blocks else 0):
        block = draw(st.sampled_from(blocks))
        args = tuple(draw(st.sampled_from(main.of(SQUARE))) for _ in block.inputs)
        main.add("call", args, [SQUARE] * len(block.outputs), block=block.name)
        main = draw(_grown(main, 3))
    results = draw(st.lists(st.sampled_from(main.values), min_size=1, max_size=3))
    updates = [draw(st.sampled_from(main.of(value.type))) for value in main.inputs]
    body = Block(name="main", inputs=main.inputs, ops=tuple(main.ops), outputs=(*results, *updates))
    return verify(
        Program(
            name="random",
            main=body,
            blocks=tuple(blocks),
            inputs=tuple(Port(name=f"x{i}", role="param") for i in range(3)),
            outputs=tuple(Port(name=f"y{i}", role="result") for i in range(len(body.outputs))),
            updates=(*(None for _ in results), 0, 1, 2),
        )
    )
