"""Plans of two stages of a pipeline, written down by hand."""

from collections.abc import Sequence

from run.plans import WHOLE, f32, make_program, one
from supernode.ir import DType, Op, Program, Site, TensorType, Value
from supernode.plan import Layout, Mesh, Plan, verify_plan

_TABLE, _INDEX = f32(8, 8), TensorType("int64", (4,))
_PORTS = (("w", "param"), ("v", "param"), ("n", "buffer"), ("x", "arg"), ("i", "arg"))
_RESULTS = (("loss", None), ("c", None), ("w", 0), ("v", 1), ("n", 2))


def staged_plan() -> Plan:
    """Two stages: rows of the table `w` by `x` go to stage 1, which adds those of `v` by `i`.

    The sum of that comes back; each stage adds it to its own table, stage 1 also to the number `n`.
    A chip that is given an index out of range fails, while the other waits for it.
    """
    w, v, n, x, i = _values(0, f32(16, 8), _TABLE, f32(), _INDEX, _INDEX)
    a, b, c, total = _values(5, f32(4, 8), f32(4, 8), f32(4, 8), f32())
    new_w, new_v, new_n = _values(9, w.type, v.type, n.type)
    no_w, no_v, no_n, no_c = _values(12, f32(0, 8), f32(0, 8), f32(), f32(0, 8))
    left = [one("aten.embedding", (w, x), a, "first")]
    right = [
        one("aten.embedding", (v, i), b, "second"),
        one("aten.add.Tensor", (a, b), c, "second"),
        one("aten.sum", (c,), total, "second"),
    ]
    grow_w = one("aten.add.Tensor", (w, total), new_w)
    grow = [one("aten.add.Tensor", (v, total), new_v), one("aten.add.Tensor", (n, total), new_n)]
    dtype = (("dtype", DType("float32")),)
    nothing = Op(name="aten.full", args=((0, 8), 0), kwargs=dtype, outputs=(no_c,))
    first = _tables(
        (w, no_v, no_n, x, i),
        [*left, _send(a, 1), _receive(total, 1), grow_w, nothing],
        (total, no_c, new_w, no_v, no_n),
    )
    second = _tables(
        (no_w, v, n, x, i),
        [_receive(a, 0), *right, _send(total, 0), *grow],
        (total, c, no_w, new_v, new_n),
    )
    whole = _tables(
        (w, v, n, x, i), [*left, *right, grow_w, *grow], (total, c, new_w, new_v, new_n)
    )
    homes = (WHOLE(2).at("pp", 0), WHOLE(2).at("pp", 1), WHOLE(0).at("pp", 1))
    inputs, outputs = (*homes, WHOLE(1), WHOLE(1)), (WHOLE(0), homes[1], *homes)
    return verify_plan(_two_stages(whole, first, second, inputs, outputs))


def slow_stages_plan() -> Plan:
    """Two stages that hand a number back and forth 200 times, with a large product in between."""
    size = 1024
    x, y, s = Value(0, f32(size, size)), Value(1, f32()), Value(2000, f32(8))
    values = [Value(2 + at, f32()) for at in range(400)]
    stages: list[Program] = []
    for stage in range(2):
        ops: list[Op] = []
        for at, value in enumerate(values):
            if at % 2 != stage:
                ops.append(_receive(value, 1 - stage))
                continue
            moved, product = _values(1000 + 2 * at, x.type, x.type)
            ops += [
                one("aten.mul.Tensor", (x, values[at - 1] if at else 0.0), moved, "layer.7"),
                one("aten.mm", (moved, moved), product, "layer.7"),
                one("aten.sum", (product,), value, "layer.7"),
                _send(value, 1 - stage),
            ]
        here = s if stage else Value(s.id, f32(0))
        inputs = ((x, "x", "arg"), (here, "s", "buffer"))
        stages.append(make_program(inputs=inputs, ops=ops, outputs=((values[-1], "y", None),)))
    whole = make_program(
        inputs=((x, "x", "arg"), (s, "s", "buffer")),
        ops=[one("aten.sum", (x,), y)],
        outputs=((y, "y", None),),
    )
    return _two_stages(whole, *stages, (WHOLE(2), WHOLE(1).at("pp", 1)), (WHOLE(0),))


def _two_stages(
    whole: Program,
    first: Program,
    second: Program,
    inputs: tuple[Layout, ...],
    outputs: tuple[Layout, ...],
) -> Plan:
    return Plan(
        program=whole,
        mesh=Mesh((("pp", 2),)),
        layout="pp=2",
        local=first,
        inputs=inputs,
        outputs=outputs,
        placements=(),
        starts=(("pp", (1,)),),
        variants=(second,),
    )


def _tables(inputs: Sequence[Value], ops: list[Op], outputs: Sequence[Value]) -> Program:
    return make_program(
        inputs=tuple((value, *port) for value, port in zip(inputs, _PORTS, strict=True)),
        ops=ops,
        outputs=tuple((value, *each) for value, each in zip(outputs, _RESULTS, strict=True)),
    )


def _values(first: int, *types: TensorType) -> list[Value]:
    return [Value(first + i, type) for i, type in enumerate(types)]


def _send(value: Value, stage: int) -> Op:
    return Op(name="fabric.send", args=((value,), "pp", stage, value.id), outputs=())


def _receive(value: Value, stage: int) -> Op:
    site = Site(module="pipe", source="model.py:9")
    return Op(name="fabric.receive", args=((), "pp", stage, value.id), outputs=(value,), site=site)
