"""Programs written down by hand, one line an op."""

from supernode.ir import Arg, Block, Op, Port, Program, Site, TensorType, Type, Value, verify


def f32(*shape: int) -> TensorType:
    return TensorType("float32", shape)


class Body:
    """A block that grows by calls: `y = body("aten.mm", x, w, type=f32(4, 4))`."""

    def __init__(self, name: str, *types: Type) -> None:
        self.name = name
        self.inputs = tuple(Value(i, type) for i, type in enumerate(types))
        self.ops: list[Op] = []
        self._next = len(types)

    def __call__(self, name: str, *args: Arg, type: Type | None = None, **kwargs: Arg) -> Value:
        """One op with one output, of the type of its first operand if none is given."""
        given = type or (args[0].type if isinstance(args[0], Value) else f32())
        return self.many(name, args, (given,), **kwargs)[0]

    def many(
        self, name: str, args: tuple[Arg, ...], types: tuple[Type, ...], **kwargs: Arg
    ) -> tuple[Value, ...]:
        """One op with several outputs; a `call` if the name is that of a block."""
        outputs = tuple(Value(self._next + i, type) for i, type in enumerate(types))
        self._next += len(types)
        call, block = ("call", name) if "." not in name else (name, "")
        site = Site(module=f"{self.name}.{len(self.ops)}", source=f"model.py:{len(self.ops) + 1}")
        self.ops.append(
            Op(
                name=call,
                args=args,
                outputs=outputs,
                kwargs=tuple(kwargs.items()),
                block=block,
                site=site,
            )
        )
        return outputs

    def block(self, *outputs: Value) -> Block:
        return Block(name=self.name, inputs=self.inputs, ops=tuple(self.ops), outputs=outputs)


def program(main: Block, *blocks: Block, updates: tuple[int | None, ...] = ()) -> Program:
    """A legal program around `main`; without `updates` every output is a result."""
    updates = updates or (None,) * len(main.outputs)
    return verify(
        Program(
            name="toy",
            main=main,
            blocks=blocks,
            inputs=tuple(Port(name=f"x{i}", role="param") for i in range(len(main.inputs))),
            outputs=tuple(Port(name=f"y{i}", role="result") for i in range(len(main.outputs))),
            updates=updates,
        )
    )
