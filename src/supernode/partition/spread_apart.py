"""Stages of a pipeline that have different axes: each one's program is spread over its own.

The stages are cut from the program of one chip, microbatch after microbatch, so they agree on what
each value is; a value that crosses is sent as its maker has it and received as its reader wants it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from supernode.ir import RECEIVE, SEND, Arg, Block, HostType, Op, Program, Value
from supernode.partition.assign import Assignment, assign
from supernode.partition.chunks import EVERYWHERE
from supernode.partition.classes import Classes
from supernode.partition.kinds import local_programs
from supernode.partition.line import Line, mesh_of
from supernode.partition.stages import AXIS, Staged
from supernode.plan import Layout, Mesh, Placement, Plan, share

PART = "local.part"


def spread_apart(program: Program, whole: Program, cut: Staged, line: Line) -> Plan:
    """The plan of `program` in the stages that `whole`, its program for one chip, was `cut` in.

    Raises:
        LayoutError: a stage can't have the layout that the line gives it.
    """
    known = _sliced(_with_parts(whole))
    classes = Classes(known)
    made = [_Stage(known, classes, cut, line, stage) for stage in range(len(line.stages))]
    sent: dict[tuple[int, Arg], Arg] = {}
    for stage, each in enumerate(made):
        sent |= each.ends(stage)
    first, *others = (
        _addressed(local, stage, sent) for stage, each in enumerate(made) for local in each.programs
    )
    inputs = tuple(_at([each.homes[i] for each in made], home) for i, home in enumerate(cut.homes))
    outputs = tuple(
        _at([each.outputs[i] for each in made], result) for i, result in enumerate(cut.results)
    )
    return Plan(
        program=program,
        mesh=Mesh.of_stages(AXIS, [mesh_of(each.axes) for each in made]),
        layout=str(line),
        local=first,
        inputs=inputs,
        outputs=outputs,
        placements=(
            *_of_inputs(program, inputs, [made[max(home, 0)].reasons for home in cut.homes]),
            *(placed for each in made for placed in each.placements),
        ),
        starts=((AXIS, tuple(range(1, len(made)))),),
        variants=tuple(others),
        inside=tuple(each.starts for each in made),
    )


def _of_inputs(
    program: Program, inputs: Sequence[Layout | None], reasons: Sequence[tuple[str, ...]]
) -> Iterator[Placement]:
    """Of each input, by the reasons of the stage that has it."""
    for i, (value, layout) in enumerate(zip(program.main.inputs, inputs, strict=True)):
        if layout is not None:
            yield Placement(block="main", value=value.id, layout=layout, reason=reasons[i][i])


class _Stage:
    """One stage, spread over its axes."""

    def __init__(
        self, known: Program, classes: Classes, cut: Staged, line: Line, stage: int
    ) -> None:
        source = _sliced(cut.programs[stage])
        assignment = assign(known, classes, line.stages[stage].axes, str(line))
        self.axes = assignment.axes
        self.homes, self.reasons = _homes(source, assignment, cut, stage)
        goals = tuple(
            _goal(value, self.homes, source.updates[i], cut.results[i] in (EVERYWHERE, stage))
            for i, value in enumerate(source.main.outputs)
        )
        here = replace(assignment, homes=self.homes, reasons=self.reasons)
        classes = classes.of_part(source.main)
        found = local_programs(source, classes, here, goals, is_part=True)
        self.programs, self.outputs, self.starts = found.programs, found.outputs, found.starts
        self.placements = [
            replace(each, stage=stage, layout=each.layout.at(AXIS, stage))
            for each in found.placements
        ]

    def ends(self, stage: int) -> dict[tuple[int, Arg], Arg]:
        """How what the stage sends and receives lies on it, by key."""
        return {
            (stage, op.args[3]): op.args[4]
            for op in self.programs[0].main.ops
            if op.name in (SEND, RECEIVE)
        }


def _with_parts(whole: Program) -> Program:
    """`whole` with the microbatches' parts of its arguments as arguments: they have the batch."""
    arguments = {
        value.id: port
        for port, value in zip(whole.inputs, whole.main.inputs, strict=True)
        if port.role == "arg"
    }
    parts = [op for op in whole.main.ops if op.name == PART and op.inputs[0].id in arguments]
    values = tuple(value for op in parts for value in op.outputs)
    ports = tuple(arguments[op.inputs[0].id] for op in parts)
    ops = tuple(op for op in whole.main.ops if op not in parts)
    main = replace(whole.main, inputs=(*whole.main.inputs, *values), ops=ops)
    return replace(whole, inputs=(*whole.inputs, *ports), main=main)


def _sliced(program: Program) -> Program:
    """`program` with the parts of what all parts share as slices: axes may cut them further."""
    blocks = tuple(map(_sliced_in, program.blocks))
    return replace(program, main=_sliced_in(program.main), blocks=blocks)


def _sliced_in(block: Block) -> Block:
    if all(op.name != PART for op in block.ops):
        return block
    return replace(block, ops=tuple(_slice(op) if op.name == PART else op for op in block.ops))


def _slice(op: Op) -> Op:
    source, dim, part, parts, *units = op.args
    assert isinstance(dim, int)
    assert isinstance(part, int)
    assert isinstance(parts, int)
    count = int(str(units[0])) if units else parts
    unit = op.inputs[0].tensor.shape[dim] // count
    first, length = share(count, parts, part)
    bounds = first * unit, (first + length) * unit
    return replace(op, name="aten.slice.Tensor", args=(source, dim, *bounds))


def _homes(
    source: Program, assignment: Assignment, cut: Staged, stage: int
) -> tuple[tuple[Layout | None, ...], tuple[str, ...]]:
    """Of each input of a stage; what no stage alone has is whole, as stages cut it differently."""
    homes: list[Layout | None] = []
    reasons: list[str] = []
    for i, value in enumerate(source.main.inputs):
        own, home = cut.homes[i] == stage, assignment.homes[i]
        if home is not None and not own:
            home = Layout.whole(len(value.tensor.shape))
        homes.append(home)
        reasons.append(assignment.reasons[i] if own else "whole: stages cut it differently")
    return tuple(homes), tuple(reasons)


def _goal(
    value: Value, homes: Sequence[Layout | None], update: int | None, own: bool
) -> Layout | None:
    """How an output leaves its stage; None: as it comes."""
    if update is not None:
        return homes[update]
    if isinstance(value.type, HostType) or (own and value.type.shape):
        return None
    return Layout.whole(len(value.type.shape))


def _at(layouts: Sequence[Layout | None], stage: int) -> Layout | None:
    layout = layouts[max(stage, 0)]
    return layout if layout is None or stage == EVERYWHERE else layout.at(AXIS, stage)


def _addressed(local: Program, stage: int, ends: dict[tuple[int, Arg], Arg]) -> Program:
    """`local` with both ends' layouts in what it sends and receives."""
    ops: list[Op] = []
    for op in local.main.ops:
        if op.name in (SEND, RECEIVE):
            values, axis, other, key, own, shape = op.args
            assert isinstance(other, int)
            theirs = ends[other, key]
            pair = (own, theirs) if op.name == SEND else (theirs, own)
            op = replace(op, args=(values, axis, other, key, *pair, shape))
        ops.append(op)
    return replace(local, main=replace(local.main, ops=tuple(ops)))
