"""Where gradients should end up: in the layout of the optimizer state they are about to meet.

Walking the optimizer's pointwise ops backwards from the new state, each operand of the state's
shape is wanted in the state's layout. A gradient's partial sums are then added up straight into
that layout (a reduce-scatter where the state is kept in parts), as soon as they exist.
"""

from collections.abc import Mapping

from supernode.ir import CALL, Block, HostType, Op, Program
from supernode.ops.formula import broadcast
from supernode.ops.row import table
from supernode.plan import Layout

Wanted = dict[int, Layout]


def wanted_in(
    block: Block,
    outputs: Mapping[int, Layout],
    inputs: Mapping[int, Layout],
    program: Program,
) -> Wanted:
    """The wanted layouts of the values of `block`, by id.

    `outputs` gives those of values the block hands out, `inputs` the layouts of inputs that are
    kept from step to step and so can't be chosen.
    """
    wanted: Wanted = dict(outputs)
    for op in reversed(block.ops):
        if op.name == CALL:
            _through_call(op, wanted, inputs, program)
        elif op.site.phase == "optimizer" and _is_pointwise(op):
            layout = wanted.get(op.outputs[0].id)
            for value in op.inputs:
                if layout and value.id not in inputs and value.type == op.outputs[0].type:
                    wanted.setdefault(value.id, layout)
    return wanted


def _through_call(op: Op, wanted: Wanted, inputs: Mapping[int, Layout], program: Program) -> None:
    callee = program.block(op.block)
    formal_outputs = {
        formal.id: wanted[actual.id]
        for formal, actual in zip(callee.outputs, op.outputs, strict=True)
        if actual.id in wanted
    }
    if not formal_outputs:
        return
    fixed = {
        formal.id: inputs[actual.id]
        for formal, actual in zip(callee.inputs, op.inputs, strict=True)
        if actual.id in inputs
    }
    inside = wanted_in(callee, formal_outputs, fixed, program)
    for formal, actual in zip(callee.inputs, op.inputs, strict=True):
        if formal.id in inside and actual.id not in inputs:
            wanted.setdefault(actual.id, inside[formal.id])


def _is_pointwise(op: Op) -> bool:
    found = table().get(op.name)
    return (
        found is not None
        and found.formula is broadcast
        and not isinstance(op.outputs[0].type, HostType)
    )
