"""Fourier transforms and complex numbers: dims that are not transformed are free."""

from collections.abc import Callable
from dataclasses import replace

from supernode.ir import Op
from supernode.ops.formula import Dims, Formula, alike_but, broadcast, shape_of
from supernode.ops.row import (
    Cost,
    Row,
    free,
    int_of,
    linear_in,
    linear_in_all,
    nonlinear,
    same,
    streaming,
)

_STAGES = 5
"""FLOP of a transform of n complex numbers: 5 n log2 n (the count of radix 2, as benchFFT's)."""


def _transformed(op: Op) -> Formula:
    """The dims that are transformed can't be split; that of real numbers has another size."""
    rank, dims = len(shape_of(op.outputs[0])), op.args[1]
    assert isinstance(dims, tuple)
    return alike_but(op, {int_of(dim) % rank for dim in dims})


def _transform_cost(op: Op) -> Cost:
    shape, dims = max((shape_of(v) for v in (*op.inputs, *op.outputs)), key=len), op.args[1]
    assert isinstance(dims, tuple)
    stages = sum(max(shape[int_of(dim)] - 1, 1).bit_length() for dim in dims)
    return streaming(_STAGES * stages)(op)


def _parts(op: Op) -> Formula:
    """Real and imaginary part as a last dim of the one or the other."""
    shape = min((shape_of(op.inputs[0]), shape_of(op.outputs[0])), key=len)
    names: Dims = tuple((f"i{k}",) for k in range(len(shape)))
    inside, outside = (
        names if len(shape_of(value)) == len(shape) else (*names, ())
        for value in (op.inputs[0], op.outputs[0])
    )
    sizes = {f"i{k}": size for k, size in enumerate(shape)}
    return Formula(inputs=(inside,), outputs=(outside,), sizes=sizes)


def _row(
    name: str,
    formula: Callable[[Op], Formula],
    note: str,
    *,
    linear: Callable[[Op], tuple[tuple[int, ...], ...]] = linear_in_all,
    view: bool = False,
) -> Row:
    return Row(
        name=f"aten.{name}",
        formula=formula,
        cost=free if view else streaming(1),
        linear=linear,
        local=same,
        view=view,
        note=note,
    )


TRANSFORMS = [
    Row(
        name=f"aten._fft_{kind}",
        formula=_transformed,
        cost=_transform_cost,
        linear=linear_in((0,)),
        local=same,
        note=note,
    )
    for kind, note in (
        ("r2c", "of real numbers, one half of the result if it is one-sided"),
        ("c2r", "back to real numbers; the last size is that of the result"),
        ("c2c", "of complex numbers, forward or back"),
    )
]

COMPLEX = [
    _row("view_as_real", _parts, "the two parts as a dim", view=True),
    _row("view_as_complex", _parts, "a dim of two as one number", view=True),
    _row("complex", broadcast, "of a real and an imaginary part"),
    _row("polar", broadcast, "of an absolute value and an angle", linear=nonlinear),
    _row("angle", broadcast, "of a complex number", linear=nonlinear),
    _row("conj_physical", broadcast, "the conjugate, written out"),
]

# Chips exchange bytes, so what torch would only note beside a tensor is done.
NOTED = [
    replace(
        _row(name, broadcast, f"noted only; {done} where chips share work", view=True),
        local=lambda op, split, outputs, done=done: replace(op, name=f"aten.{done}"),
        sizes=False,
    )
    for name, done in (("_conj", "conj_physical"), ("_neg_view", "neg"))
]

ROWS = [*TRANSFORMS, *COMPLEX, *NOTED]
