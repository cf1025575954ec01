"""Program and layout line to Plan: the ordered list of passes."""

import math
from collections.abc import Mapping
from dataclasses import replace

from supernode.ir import Block, HostType, Program, Value
from supernode.partition.assign import Assignment, assign
from supernode.partition.classes import Classes
from supernode.partition.line import Axis, Line, mesh_of, parse_line
from supernode.partition.merge import BUCKET_BYTES, merge
from supernode.partition.offload import offloaded
from supernode.partition.pipeline import pipelined
from supernode.partition.recompute import recompute
from supernode.partition.spread import LocalBlock, Spreader
from supernode.partition.sums import sums_first
from supernode.partition.unroll import Tag, unroll, untimed
from supernode.plan import Layout, Mesh, Plan, Starts, breaks, variant_ranks, verify_plan


def partition(program: Program, layout: str = "", chips: int | None = None) -> Plan:
    """The Plan of `program` in the layout that the line says (`dp=2,tp=4,sp`; empty: one chip).

    Raises:
        LayoutError: the line is malformed, does not multiply to `chips`, or would leave a chip
            without a part of a dim.
        UnknownOp: more than one chip, and an op has no row in the op table.
    """
    line = parse_line(layout, chips)
    source = recompute(program, line.recompute)
    if not line.axes and line.pipeline is None:
        plan = _one_chip(program, source, line)
    else:
        classes = Classes(source)
        assignment = assign(source, classes, line.axes, str(line))
        plan = _spread(program, source, classes, assignment, line)
    if line.offload is not None:
        plan = offloaded(plan, line.offload)
    return verify_plan(plan)


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
    axes = line.axes
    goals = tuple(
        None if input_ is None else assignment.homes[input_] for input_ in program.updates
    )

    def local(at: Mapping[str, int]) -> tuple[Spreader, LocalBlock, Program, list[Tag]]:
        spreader = Spreader(source, classes, assignment, axes, at)
        main = spreader.main(goals)
        blocks = tuple(sums_first(block, time) for block in spreader.blocks)
        made = replace(source, main=sums_first(main.block, time), blocks=blocks)
        tags = untimed(made)
        for axis in axes:
            if axis.scheme.time:
                made, tags = unroll(made, axis.name, axis.size)
        return spreader, main, made, tags

    time = [axis.name for axis in axes if axis.scheme.time]
    mesh = mesh_of(tuple(axis for axis in axes if not axis.scheme.time))
    spreader, main, first, tags = local({})
    starts = _starts(spreader, axes)
    plan = Plan(
        program=program,
        mesh=mesh,
        layout=str(line),
        local=first,
        inputs=assignment.homes,
        outputs=main.outputs,
        placements=tuple(spreader.placements),
        starts=starts,
        variants=tuple(
            local(mesh.coordinates(rank))[2] for rank in variant_ranks(mesh, starts)[1:]
        ),
    )
    if line.pipeline is not None:
        plan = pipelined(plan, tags, line.pipeline)
    return _merged(plan)


def _starts(spreader: Spreader, axes: tuple[Axis, ...]) -> Starts:
    """Where along which axes chips begin to have smaller pieces."""
    mesh = mesh_of(axes)
    found = {each for cuts, size in spreader.uneven for each in breaks(cuts, size, mesh)}
    names = [name for name, _ in mesh.axes if any(axis == name for axis, _ in found)]
    return tuple(
        (name, tuple(sorted(start for axis, start in found if axis == name))) for name in names
    )


def _merged(plan: Plan) -> Plan:
    """`plan` with its collectives merged: chips that run the same ops merge them alike."""
    done: dict[tuple[int, int], Block] = {}
    programs = [
        _merged_by(plan.local_of(rank), plan.largest(rank), done)
        for rank in variant_ranks(plan.mesh, plan.starts)
    ]
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
