"""Where in the user's step an input of the Program is read: what a refused layout points at."""

from supernode.errors import LayoutError
from supernode.ir import CALL, Block, HostType, Op, Program, Value, print_typed
from supernode.partition.classes import Classes, Part
from supernode.plan import Layout

Split = dict[str, dict[Part, int]]


def pointed(
    error: LayoutError, program: Program, classes: Classes, split: Split, value: Value
) -> LayoutError:
    """`error` with the first op that reads `value`, in the layouts that the axes ask for."""
    found = _reader(program, program.main, value)
    if found is None:
        return error
    block, op = found

    def note(each: Value) -> str:
        if isinstance(each.type, HostType):
            return ""
        return f" {_asked(classes, split, block.name, each)}"

    return error.complete(op=print_typed(op, note), where=str(op.site))


def _reader(program: Program, block: Block, value: Value) -> tuple[Block, Op] | None:
    for op in block.ops:
        if value not in op.inputs:
            continue
        if op.name != CALL:
            return block, op
        callee = program.block(op.block)
        formal = callee.inputs[op.inputs.index(value)]
        return _reader(program, callee, formal)
    return None


def _asked(classes: Classes, split: Split, block: str, value: Value) -> Layout:
    places = [classes.of(block, value, dim) for dim in range(len(value.tensor.shape))]
    axes = (tuple(axis for axis in split if place in split[axis]) for place in places)
    return Layout(tuple(axes))
