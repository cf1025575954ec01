"""Small plans written down by hand, for the engine: nothing of the partition is needed."""

from supernode.ir import (
    Arg,
    Block,
    DType,
    HostType,
    Op,
    Port,
    Program,
    Site,
    TensorType,
    Value,
    verify,
)
from supernode.plan import Layout, Mesh, Plan, verify_plan

WHOLE = Layout.whole
FEATURES = 8


def f32(*shape: int) -> TensorType:
    return TensorType("float32", shape)


def training_plan(chips: int, batch: int = 8) -> Plan:
    """One step of gradient descent on `sum(x @ w) / 2`'s normal equations, batch split over dp.

    w' = w - rate x.T @ (x @ w); the loss is sum(x @ w); `count` is a host number that goes up.
    """
    program = _training(batch, reduced=False)
    local = _training(batch // chips, reduced=chips > 1)
    layouts = (WHOLE(2), Layout((("dp",), ())), None, None)
    return verify_plan(
        Plan(
            program=program,
            mesh=Mesh((("dp", chips),)),
            layout="dp",
            local=local,
            inputs=layouts,
            outputs=(WHOLE(0), WHOLE(2), None, Layout((("dp",), ()))),
            placements=(),
        )
    )


def _training(batch: int, *, reduced: bool) -> Program:
    w, x = Value(0, f32(FEATURES, FEATURES)), Value(1, f32(batch, FEATURES))
    count, rate = Value(2, HostType()), Value(3, HostType())
    y, xt = Value(4, f32(batch, FEATURES)), Value(5, f32(FEATURES, batch))
    grad, loss = Value(6, w.type), Value(7, f32())
    step, new = Value(8, w.type), Value(9, w.type)
    ops = [
        one("aten.mm", (x, w), y, "fc"),
        one("aten.sum", (y,), loss, "fc"),
        one("aten.t", (x,), xt, "fc"),
        one("aten.mm", (xt, y), grad, "fc"),
    ]
    if reduced:
        summed = (Value(10, w.type), Value(11, f32()))
        ops.append(Op(name="fabric.all_reduce", args=((grad, loss), "dp", "sum"), outputs=summed))
        grad, loss = summed
    ops += [
        one("aten.mul.Tensor", (grad, rate), step),
        one("aten.sub.Tensor", (w, step), new),
        one("host.add", (count, 1), after := Value(12, HostType())),
    ]
    return make_program(
        inputs=((w, "w", "param"), (x, "x", "arg"), (count, "count", "state"), (rate, "r", "host")),
        ops=ops,
        outputs=((loss, "loss", None), (new, "w", 0), (after, "count", 2), (y, "y", None)),
    )


def split_plan(chips: int) -> Plan:
    """State `m` split along dim 1 that grows by the chip's own columns of `x` each step."""

    def program(columns: int, *, local: bool) -> Program:
        m, x = Value(0, f32(4, columns)), Value(1, f32(4, 8))
        piece, new = Value(2, m.type), Value(3, m.type)
        ops = [one("aten.add.Tensor", (m, piece if local else x), new)]
        if local:
            ops.insert(0, one("local.shard", (x, 1, "tp"), piece))
        return make_program(
            inputs=((m, "m", "param"), (x, "x", "arg")), ops=ops, outputs=((new, "m", 0),)
        )

    layout = Layout(((), ("tp",)))
    return verify_plan(
        Plan(
            program=program(8, local=False),
            mesh=Mesh((("tp", chips),)),
            layout="tp",
            local=program(8 // chips, local=True),
            inputs=(layout, WHOLE(2)),
            outputs=(layout,),
            placements=(),
        )
    )


def one_op_plan(name: str, args: tuple[object, ...], type: TensorType, chips: int = 1) -> Plan:
    """`y = op(x, …)` on every chip alike; `x` is an argument of shape `[8]`, `s` unused state."""
    x, s, y = Value(0, f32(8)), Value(1, f32(8)), Value(2, type)
    program = make_program(
        inputs=((x, "x", "arg"), (s, "s", "buffer")),
        ops=[one(name, (x, *args), y, "layer.3")],  # type: ignore[arg-type]
        outputs=((y, "y", None),),
    )
    return Plan(
        program=program,
        mesh=Mesh((("dp", chips),)),
        layout="",
        local=program,
        inputs=(WHOLE(1), WHOLE(1)),
        outputs=(WHOLE(len(type.shape)),),
        placements=(),
    )


def moving_plan() -> Plan:
    """Two chips: gather the rows of `x`, scatter the sums by column, then columns for rows."""
    x, y = Value(0, f32(2, 4)), Value(3, f32(2, 4))
    whole, sums = Value(1, f32(4, 4)), Value(2, f32(4, 2))
    local = make_program(
        inputs=((x, "x", "arg"),),
        ops=[
            Op(name="fabric.all_gather", args=((x,), "dp", (0,)), outputs=(whole,)),
            Op(name="fabric.reduce_scatter", args=((whole,), "dp", (1,), "sum"), outputs=(sums,)),
            Op(name="fabric.all_to_all", args=((sums,), "dp", (0,), (1,)), outputs=(y,)),
        ],
        outputs=((y, "y", None),),
    )
    global_x, global_y = Value(0, f32(4, 4)), Value(1, f32(4, 4))
    program = make_program(
        inputs=((global_x, "x", "arg"),),
        ops=[one("aten.mul.Tensor", (global_x, 2.0), global_y)],
        outputs=((global_y, "y", None),),
    )
    rows = Layout((("dp",), ()))
    return verify_plan(
        Plan(
            program=program,
            mesh=Mesh((("dp", 2),)),
            layout="dp",
            local=local,
            inputs=(rows,),
            outputs=(rows,),
            placements=(),
        )
    )


LARGE = 2**20


def slow_plan(chips: int) -> Plan:
    """2000 all-reduces of 4 MiB, one after the other: a step that takes seconds."""
    x, values = Value(0, f32(LARGE)), [Value(1 + i, f32(LARGE)) for i in range(2000)]
    site = Site(module="layer.7", source="model.py:7")
    ops = [
        Op(name="fabric.all_reduce", args=((before,), "dp", "max"), outputs=(after,), site=site)
        for before, after in zip([x, *values], values, strict=False)
    ]
    local = make_program(inputs=((x, "x", "arg"),), ops=ops, outputs=((values[-1], "y", None),))
    program = make_program(
        inputs=((x, "x", "arg"),),
        ops=[one("aten.clone", (x,), values[0])],
        outputs=((values[0], "y", None),),
    )
    return Plan(
        program=program,
        mesh=Mesh((("dp", chips),)),
        layout="dp",
        local=local,
        inputs=(WHOLE(1),),
        outputs=(WHOLE(1),),
        placements=(),
    )


def lookup_plan(chips: int) -> Plan:
    """Rows of the table `w` by the indices `x`, split over dp; noise on `w` every step.

    A chip that is given an index of 8 or more fails, while the others wait for it.
    """

    def program(batch: int, *, local: bool) -> Program:
        w, x = Value(0, f32(8, 8)), Value(1, TensorType("int64", (batch,)))
        rows, total = Value(2, f32(batch, 8)), Value(3, f32())
        summed, noise, new = Value(4, f32()), Value(5, w.type), Value(6, w.type)
        seed, step = Value(7, HostType("int64")), Value(8, TensorType("int64", ()))
        now, later = Value(9, HostType("int64")), Value(10, step.type)
        draw = (seed, now, 0, (8, 8), 0.5)
        ops = [
            one("host.int", (11,), seed),
            one("aten._local_scalar_dense", (step,), now),
            one("random.bernoulli", draw, noise, dtype=DType("float32")),
            one("aten.add.Tensor", (step, 1), later),
            one("aten.embedding", (w, x), rows, "model.table"),
            one("aten.sum", (rows,), total),
        ]
        if local:
            reduce = Op(name="fabric.all_reduce", args=((total,), "dp", "sum"), outputs=(summed,))
            ops.append(reduce)
        ops.append(one("aten.add.Tensor", (w, noise), new))
        return make_program(
            inputs=((w, "w", "param"), (x, "x", "arg"), (step, "random.step", "state")),
            ops=ops,
            outputs=(
                (summed if local else total, "loss", None),
                (new, "w", 0),
                (later, "random.step", 2),
            ),
        )

    return verify_plan(
        Plan(
            program=program(4 * chips, local=False),
            mesh=Mesh((("dp", chips),)),
            layout="dp",
            local=program(4, local=chips > 1),
            inputs=(WHOLE(2), Layout((("dp",),)), WHOLE(0)),
            outputs=(WHOLE(0), WHOLE(2), WHOLE(0)),
            placements=(),
        )
    )


def one(name: str, args: tuple[object, ...], output: Value, module: str = "", **kwargs: Arg) -> Op:
    site = Site(module=module, source="model.py:7")
    items = tuple(kwargs.items())
    return Op(name=name, args=args, kwargs=items, outputs=(output,), site=site)  # type: ignore[arg-type]


def make_program(*, inputs, ops, outputs) -> Program:
    main = Block(
        name="main",
        inputs=tuple(value for value, *_ in inputs),
        ops=tuple(ops),
        outputs=tuple(value for value, *_ in outputs),
    )
    return verify(
        Program(
            name="toy",
            main=main,
            inputs=tuple(Port(name=name, role=role) for _, name, role in inputs),
            outputs=tuple(
                Port(name=name, role="result" if source is None else "param")
                for _, name, source in outputs
            ),
            updates=tuple(source for *_, source in outputs),
        )
    )
