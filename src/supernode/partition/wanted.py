"""Where gradients should end up: in the layout of the optimizer state they are about to meet.

Walking the optimizer's pointwise ops backwards from the new state, each operand of the state's
shape is wanted in the state's layout. A gradient's partial sums are then added up straight into
that layout (a reduce-scatter where the state is kept in parts), as soon as they exist.

In a stage that runs microbatch after microbatch, what is wanted is a running sum, and each of its
terms goes into pieces by itself where chips keep only pieces of the weight.
"""

from collections.abc import Iterable, Mapping

from supernode.ir import CALL, Block, HostType, Op, Program
from supernode.ops.formula import broadcast
from supernode.ops.row import table
from supernode.plan import Layout

Wanted = dict[int, Layout]
RUNNING = ("aten.add.Tensor", "aten._to_copy")
"""What running sums are made of: one adds, the other rounds."""


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


def terms_in(block: Block, sums: Mapping[int, Layout], program: Program) -> Wanted:
    """The terms of running sums of gradients in `block`, by id, with the layout of the sum.

    `sums` gives that of values of the block which may be such sums.
    """
    known, terms = dict(sums), Wanted()
    for op in reversed(block.ops):
        found: Wanted = {}
        if op.name == CALL:
            callee = program.block(op.block)
            pairs = list(zip(callee.outputs, op.outputs, strict=True))
            given = {inner.id: known[outer.id] for inner, outer in pairs if outer.id in known}
            inside = terms_in(callee, given, program) if given else {}
            ends = zip(callee.inputs, op.inputs, strict=True)
            found = {outer.id: inside[inner.id] for inner, outer in ends if inner.id in inside}
        elif op.name in RUNNING and op.site.phase == "backward" and op.outputs[0].id in known:
            out = op.outputs[0]
            alike = [v for v in op.inputs if v.tensor.shape == out.tensor.shape]
            found = {value.id: known[out.id] for value in alike}
        known, terms = found | known, found | terms
    return terms


def scattered(now: Layout, goal: Layout, axes: Iterable[str]) -> Layout:
    """`now` with the partial sums along `axes` in the pieces that `goal` has of them."""
    for axis in axes:
        where = goal.where(axis)
        if where is None or now.kind_of(axis) is None:
            continue
        dim, each = where
        cuts = (*now.dims[dim], each)
        if goal.dims[dim][: len(cuts)] == cuts:
            dims = (*now.dims[:dim], cuts, *now.dims[dim + 1 :])
            now = Layout(dims, tuple(part for part in now.partial if part[0] != axis))
    return now


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
