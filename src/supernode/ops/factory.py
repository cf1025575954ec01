"""Ops that make values out of nothing: constants may be made in parts, ranges are made whole."""

from collections.abc import Callable
from dataclasses import replace

from supernode.ir import HostType, Op, Type
from supernode.ops.formula import Formula, bare, shape_of
from supernode.ops.row import Cost, Row, Split, nonlinear, same, sized, traffic

Local = Callable[[Op, Split, tuple[Type, ...]], Op]


def _parts(op: Op) -> Formula:
    """Each dim of the output may be made in parts; an input of its shape lies in parts like it."""
    shape = shape_of(op.outputs[0])
    names = tuple((f"i{k}",) for k in range(len(shape)))
    shapes = [shape_of(value) for value in op.inputs]
    return Formula(
        inputs=tuple(names if each == shape else ((),) * len(each) for each in shapes),
        outputs=(names,),
        sizes={f"i{k}": size for k, size in enumerate(shape)},
    )


def _new(op: Op) -> Formula:
    """The first input gives dtype and device."""
    unread = shape_of(op.inputs[0]) != shape_of(op.outputs[0])
    return replace(_parts(op), unread=frozenset({0} if unread else ()))


def _alike(op: Op) -> Formula:
    shape = shape_of(op.outputs[0])
    names = tuple((f"i{k}",) for k in range(len(shape)))
    ins = (names, *(() for _ in op.inputs[1:]))
    return Formula(
        inputs=ins, outputs=(names,), sizes={f"i{k}": size for k, size in enumerate(shape)}
    )


def _unstrided(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """Strides are the executor's choice."""
    (out,) = outputs
    assert not isinstance(out, HostType)
    return replace(op, name="aten.new_empty", args=(op.args[0], out.shape))


def _written(op: Op) -> Cost:
    """The first input gives dtype, device and shape only; a second is the number of a fill."""
    read = sum(value.type.size_bytes for value in op.inputs[1:])
    _, written = traffic(op)
    return Cost(0.0, float(read), written, "vector", op.outputs[0].tensor.dtype)


def _zeros(op: Op) -> tuple[tuple[int, ...], ...]:
    """Zeros are parts of zeros: what is then added to them may stay in parts."""
    return ((0,),) if "float" in op.outputs[0].tensor.dtype else ()


def _row(name: str, formula: Callable[[Op], Formula], local: Local) -> Row:
    return Row(
        name=name,
        formula=formula,
        cost=_written,
        linear=_zeros if name in ("aten.new_zeros", "aten.zeros_like") else nonlinear,
        local=local,
        note="written once",
    )


ROWS = [
    *(_row(f"aten.{name}", _parts, sized(0)) for name in ("full", "zeros", "ones")),
    _row("aten.empty.memory_format", _parts, sized(0)),
    _row("aten.new_empty_strided", _new, _unstrided),
    *(
        _row(f"aten.{name}", _new, sized(1))
        for name in ("new_zeros", "new_ones", "new_full", "new_empty")
    ),
    *(_row(f"aten.{name}_like", _alike, same) for name in ("zeros", "ones", "full", "empty")),
    *(_row(f"aten.fill.{kind}", _alike, same) for kind in ("Scalar", "Tensor")),
    _row("aten.scalar_tensor", bare, same),
    *(_row(f"aten.{name}", bare, same) for name in ("linspace", "eye")),
    *(_row(f"aten.arange{kind}", bare, same) for kind in ("", ".start", ".start_step")),
    *(_row(f"aten.{name}", bare, same) for name in ("tril_indices", "triu_indices", "eye.m")),
]
