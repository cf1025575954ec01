"""Program and layout line to Plan: the ordered list of passes."""

import math
from dataclasses import replace

from supernode.errors import LayoutError
from supernode.ir import Block, HostType, Program, Value
from supernode.partition.assign import Assignment, assign
from supernode.partition.classes import Classes
from supernode.partition.kinds import local_programs
from supernode.partition.line import Line, parse_line
from supernode.partition.merge import BUCKET_BYTES, merge
from supernode.partition.offload import offloaded
from supernode.partition.pipeline import cut_in_stages, pipelined
from supernode.partition.recompute import recompute
from supernode.partition.spread_apart import spread_apart
from supernode.partition.stages import Staged
from supernode.partition.turns import in_turns
from supernode.partition.unroll import untimed
from supernode.plan import Layout, Mesh, Plan, verify_plan


def partition(program: Program, layout: str = "", chips: int | None = None) -> Plan:
    """The Plan of `program` in the layout that the line says (`dp=2,tp=4,sp`; empty: one chip).

    Raises:
        LayoutError: the line is malformed, does not multiply to `chips`, or would leave a chip
            without a part of a dim.
        UnknownOp: more than one chip, and an op has no row in the op table.
    """
    line = parse_line(layout, chips)
    source = recompute(program, line.recompute)
    if line.stages:
        plan = _merged(spread_apart(program, *_cut(source, line), line))
    elif not line.axes and line.pipeline is None:
        plan = _one_chip(program, source, line)
    else:
        classes = Classes(source)
        assignment = assign(source, classes, line.axes, str(line))
        plan = _spread(program, source, classes, assignment, line)
    if line.offload is not None:
        plan = offloaded(plan, line.offload)
    return verify_plan(plan)


def _cut(source: Program, line: Line) -> tuple[Program, Staged]:
    """The program of one chip a stage, microbatch after microbatch, cut in stages.

    Raises:
        LayoutError: a stage's axes leave a chip without a part of a microbatch, or can't be cut so.
    """
    assert line.pipeline is not None
    local, tags = source, untimed(source)
    classes = Classes(source)
    for stage in dict.fromkeys(line.stages):
        assign(source, classes, (*stage.axes, *line.axes), str(line))
    if line.axes:
        assignment = assign(source, classes, line.axes, str(line))
        goals = _goals(source, assignment)
        found = local_programs(source, classes, assignment, goals)
        (local,), tags = found.programs, found.tags
    try:
        return cut_in_stages(local, tags, line.pipeline)
    except LayoutError as error:
        raise error.complete(asked=f"layout {line}") from None


def _one_chip(program: Program, source: Program, line: Line) -> Plan:
    def whole(values: tuple[Value, ...]) -> tuple[Layout | None, ...]:
        return tuple(
            None if isinstance(value.type, HostType) else Layout.whole(len(value.type.shape))
            for value in values
        )

    return Plan(
        program=program,
        mesh=Mesh(()),
        layout=str(line),
        local=source,
        inputs=whole(program.main.inputs),
        outputs=whole(program.main.outputs),
        placements=(),
    )


def _spread(
    program: Program,
    source: Program,
    classes: Classes,
    assignment: Assignment,
    line: Line,
) -> Plan:
    found = local_programs(source, classes, assignment, _goals(program, assignment))
    programs = found.programs
    if line.turns:
        programs = tuple(in_turns(local, found.tags) for local in programs)
    plan = Plan(
        program=program,
        mesh=found.mesh,
        layout=str(line),
        local=programs[0],
        inputs=assignment.homes,
        outputs=found.outputs,
        placements=found.placements,
        starts=found.starts,
        variants=programs[1:],
    )
    if line.pipeline is not None:
        plan = pipelined(plan, found.tags, line.pipeline)
    return _merged(plan)


def _goals(program: Program, assignment: Assignment) -> tuple[Layout | None, ...]:
    """Where outputs go that are the next value of an input."""
    return tuple(None if input_ is None else assignment.homes[input_] for input_ in program.updates)


def _merged(plan: Plan) -> Plan:
    """`plan` with its collectives merged: chips that run the same ops merge them alike."""
    done: dict[tuple[int, int], Block] = {}
    programs = [_merged_by(plan.local_of(rank), plan.largest(rank), done) for rank in plan.kinds()]
    return replace(plan, local=programs[0], variants=tuple(programs[1:]))


def _merged_by(local: Program, first: Program, done: dict[tuple[int, int], Block]) -> Program:
    """`local` with its collectives merged as the sizes of `first` say.

    The stages of a pipeline share blocks, so `done` has those that another one had.
    """
    sizes = {block.name: block for block in first.all_blocks()}
    blocks: list[Block] = []
    for block in local.blocks:
        key = id(block), id(sizes[block.name])
        if key not in done:
            done[key] = merge(block, math.inf, sizes[block.name])
        blocks.append(done[key])
    main = merge(local.main, BUCKET_BYTES, sizes[local.main.name])
    return replace(local, main=main, blocks=tuple(blocks))
