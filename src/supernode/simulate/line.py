"""A program as lines: calls of repeated blocks, and the ops between them."""

from collections.abc import Iterator, Mapping
from itertools import groupby, repeat
from typing import NamedTuple

from supernode.ir import CALL, Block, Op, Program, Value
from supernode.plan import last_uses


class Line(NamedTuple):
    """A block, the values of main that it is given, and those that it makes there.

    Calls of one block share it; `task` is that of a call.
    """

    block: Block
    given: tuple[Value, ...]
    made: tuple[Value, ...]
    task: str = ""


def lines(program: Program) -> Iterator[Line]:
    """The lines of `program`, in order."""
    blocks = {block.name: block for block in program.blocks}
    last = last_uses(program.main)
    at = 0
    for is_call, group in groupby(program.main.ops, key=lambda op: op.name == CALL):
        ops = tuple(group)
        at += len(ops)
        if is_call:
            yield from map(_call, repeat(blocks), ops)
        else:
            yield _between(ops, last, at)


def _call(blocks: Mapping[str, Block], op: Op) -> Line:
    return Line(blocks[op.block], op.inputs, op.outputs, op.site.task)


def _between(ops: tuple[Op, ...], last: Mapping[int, int], end: int) -> Line:
    """Ops between calls as a block: what it is given, and what is read behind its `end`."""
    made = {value.id for op in ops for value in op.outputs}
    read = dict.fromkeys(value for op in ops for value in op.inputs if value.id not in made)
    results = (value for op in ops for value in op.outputs)
    kept = tuple(value for value in results if last.get(value.id, 0) >= end)
    return Line(Block(name="main", inputs=tuple(read), ops=ops, outputs=kept), tuple(read), kept)
