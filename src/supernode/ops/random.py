"""Random numbers: any dim may be drawn in parts, as an element depends on its global index alone.

`random.normal(seed, step, draw, shape, …, dtype=, cuts=)`: `draw` numbers the draws of a step,
`shape` is that of the whole tensor, on every chip; `cuts` says how its dims are cut. Where a dim is
cut by time, the number of the draw tells the part, too.
"""

import re
from dataclasses import replace

from supernode.ir import Op, Type
from supernode.ops.formula import Formula, broadcast, shape_of
from supernode.ops.row import Cost, Row, Split, linear_in, nonlinear, same, streaming, traffic

Shape = tuple[int, ...]
Cuts = tuple[tuple[str, ...], ...]


def piece_arguments(op: Op) -> tuple[Shape, Cuts]:
    """The shape of the whole tensor, and how each of its dims is cut."""
    shape = op.args[3]
    assert isinstance(shape, tuple)
    cuts = op.kwarg("cuts") or ((),) * len(shape)
    return shape, cuts  # pyright: ignore[reportReturnType]


_PARTS = 2**32
_TIME = re.compile(r"\*(\d+)")


def numbered(draw: int, part: int) -> int:
    """The number of a draw of one part of an axis of time."""
    return draw + part * _PARTS


def part_of(number: int) -> int:
    """The part that `numbered` was given."""
    return number // _PARTS


def time_parts(op: Op) -> int:
    """In how many parts of time the op draws; one where none of its cuts is by time."""
    _, cuts = piece_arguments(op)
    found = (match for dim in cuts for each in dim if (match := _TIME.match(each)))
    return next((int(match[1]) for match in found), 1)


def _formula(op: Op) -> Formula:
    shape = shape_of(op.outputs[0])
    names = tuple((f"i{k}",) for k in range(len(shape)))
    sizes = {f"i{k}": size for k, size in enumerate(shape)}
    return Formula(inputs=tuple(() for _ in op.inputs), outputs=(names,), sizes=sizes)


def _local(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    _, before = piece_arguments(op)
    cuts = tuple((*cut, *split.get(f"i{k}", ())) for k, cut in enumerate(before))
    others = tuple(each for each in op.kwargs if each[0] != "cuts")
    return replace(op, kwargs=(*others, ("cuts", cuts))) if any(cuts) else op


def _cost(op: Op) -> Cost:
    """Ten rounds for four words: two products, both halves, four xors and two sums each."""
    out = op.outputs[0].tensor
    return Cost(28.0 * out.numel, 0.0, traffic(op)[1], "vector", out.dtype)


ROWS = [
    *(
        Row(
            name=f"random.{name}",
            formula=_formula,
            cost=_cost,
            linear=nonlinear,
            local=_local,
            note=note,
        )
        for name, note in (
            ("uniform", "in [0, 1)"),
            ("normal", "of mean 0 and deviation 1"),
            ("exponential", "of mean 1"),
            ("bernoulli", "one with a probability, else zero: the mask of dropout"),
            ("integer", "from one number up to another"),
        )
    ),
    Row(
        name="aten.native_dropout_backward",
        formula=broadcast,
        cost=streaming(2),
        linear=linear_in((0,)),
        local=same,
        note="the gradient where the mask is, scaled",
    ),
]
