"""Program and layout line to Plan: the ordered list of passes."""

from dataclasses import replace

from supernode.ir import HostType, Program, Value
from supernode.partition.assign import Assignment, assign
from supernode.partition.classes import Classes
from supernode.partition.line import Line, mesh_of, parse_line
from supernode.partition.merge import BUCKET_BYTES, merge
from supernode.partition.recompute import recompute
from supernode.partition.spread import Spreader
from supernode.partition.unroll import unroll
from supernode.plan import Layout, Mesh, Plan, verify_plan


def partition(program: Program, layout: str = "", chips: int | None = None) -> Plan:
    """The Plan of `program` in the layout that the line says (`dp=2,tp=4,sp`; empty: one chip).

    Raises:
        LayoutError: the line is malformed, does not multiply to `chips`, or an axis does not
            divide a dim it has to split.
        UnknownOp: more than one chip, and an op has no row in the op table.
    """
    line = parse_line(layout, chips)
    source = recompute(program, line.recompute)
    if not line.axes:
        return _one_chip(program, source, line)
    classes = Classes(source)
    assignment = assign(source, classes, line.axes, str(line))
    return _spread(program, source, classes, assignment, line)


def _one_chip(program: Program, source: Program, line: Line) -> Plan:
    def whole(values: tuple[Value, ...]) -> tuple[Layout | None, ...]:
        return tuple(
            None if isinstance(value.type, HostType) else Layout.whole(len(value.type.shape))
            for value in values
        )

    return verify_plan(
        Plan(
            program=program,
            mesh=Mesh(()),
            layout=str(line),
            local=source,
            inputs=whole(program.main.inputs),
            outputs=whole(program.main.outputs),
            placements=(),
        )
    )


def _spread(
    program: Program, source: Program, classes: Classes, assignment: Assignment, line: Line
) -> Plan:
    axes = line.axes
    goals = tuple(
        None if input_ is None else assignment.homes[input_] for input_ in program.updates
    )
    spreader = Spreader(source, classes, assignment, axes)
    spread = spreader.main(goals)
    local = replace(source, main=spread.block, blocks=tuple(spreader.blocks))
    for axis in axes:
        if axis.scheme.time:
            local = unroll(local, axis.name, axis.size)
    local = replace(
        local,
        main=merge(local.main, BUCKET_BYTES),
        blocks=tuple(merge(block, float("inf")) for block in local.blocks),
    )
    return verify_plan(
        Plan(
            program=program,
            mesh=mesh_of(tuple(axis for axis in axes if not axis.scheme.time)),
            layout=str(line),
            local=local,
            inputs=assignment.homes,
            outputs=spread.outputs,
            placements=tuple(spreader.placements),
        )
    )
