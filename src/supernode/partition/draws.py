"""Random draws of a part of an axis of time: the part is told with the number of the draw.

A draw is cut by the axis like by any other, but which part is drawn is known only where the parts
are written one after another. The number of a draw is an operand wherever it is drawn, so it takes
the part along, and a block has one form for all parts.
"""

from dataclasses import replace

from supernode.ir import CALL, Arg, Block, Op, Program
from supernode.ops.random import numbered, piece_arguments
from supernode.plan import cut, cut_axis, cut_units, cut_within, time_axis


def timed(local: Program, axis: str, parts: int) -> Program:
    """`local` with its draws cut by time where `axis` cuts them."""

    def of_block(block: Block) -> Block:
        return replace(block, ops=tuple(_timed(op, axis, parts) for op in block.ops))

    return replace(local, main=of_block(local.main), blocks=tuple(map(of_block, local.blocks)))


def _timed(op: Op, axis: str, parts: int) -> Op:
    if op.kwarg("cuts") is None:
        return op
    _, dims = piece_arguments(op)
    word = time_axis(parts)
    cuts = tuple(
        tuple(
            cut(word, cut_within(each), cut_units(each)) if cut_axis(each) == axis else each
            for each in dim
        )
        for dim in dims
    )
    return replace(op, kwargs=tuple((k, cuts if k == "cuts" else v) for k, v in op.kwargs))


def timed_numbers(local: Program) -> frozenset[int]:
    """The values of main that number a draw cut by time, by id."""
    inside = {block.name: _numbers(block) for block in local.blocks}
    found = set(_numbers(local.main))
    for op in local.main.ops:
        if op.name == CALL:
            callee = local.block(op.block)
            for formal, actual in zip(callee.inputs, op.inputs, strict=True):
                if formal.id in inside[op.block]:
                    found.add(actual.id)
    return frozenset(found)


def _numbers(block: Block) -> frozenset[int]:
    return frozenset(
        op.inputs[2].id
        for op in block.ops
        if op.kwarg("cuts") is not None and any(map(_has_time, piece_arguments(op)[1]))
    )


def _has_time(cuts: tuple[str, ...]) -> bool:
    return any(cut_axis(each).startswith("*") for each in cuts)


def of_part(op: Op, part: int) -> Op:
    """The `host.int` that numbers a draw, for one part."""
    number: Arg = op.args[0]
    assert isinstance(number, int)
    return replace(op, args=(numbered(number, part),))
