"""The programs of all kinds of chips: the same ops on pieces of other sizes.

Where an axis does not divide what it splits, some chips have smaller pieces, and so have later
parts in time. What is chosen follows from whole sizes, so each program is spread for itself.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from supernode.ir import CALL, Block, Program
from supernode.partition.assign import Assignment
from supernode.partition.classes import Classes
from supernode.partition.levels import unequal
from supernode.partition.line import Axis, mesh_of
from supernode.partition.spread import LocalBlock, Spreader
from supernode.partition.sums import sums_first
from supernode.partition.unroll import Tag, unroll, untimed
from supernode.plan import Layout, Mesh, Placement, Starts, breaks, variant_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """`programs[i]` is that of the chips of kind `i` of the `mesh`, which `starts` tell apart as in
    a Plan. `tags` say for each op of main where it comes from; `outputs` and `placements` are those
    of the Plan."""

    mesh: Mesh
    starts: Starts
    programs: tuple[Program, ...]
    tags: list[Tag]
    outputs: tuple[Layout | None, ...]
    placements: tuple[Placement, ...]


def local_programs(
    source: Program,
    classes: Classes,
    assignment: Assignment,
    goals: tuple[Layout | None, ...],
    *,
    is_part: bool = False,
) -> Kinds:
    """`source` spread over the axes of `assignment`, at most one of them of time. `goals[i]` is the
    layout in which output `i` must end, None: in any. `is_part` is said of one stage, cut before.
    """
    axes = assignment.axes
    time = next((axis for axis in axes if axis.scheme.time), None)
    mesh = mesh_of(tuple(axis for axis in axes if axis is not time))

    @cache
    def spread(rank: int, part: int) -> tuple[Spreader, LocalBlock]:
        at = mesh.coordinates(rank) | ({time.name: part} if time else {})
        spreader = Spreader(source, classes, assignment, at, is_part)
        return spreader, spreader.main(goals)

    def local(rank: int, part: int) -> Program:
        spreader, main = spread(rank, part)
        timed = [time.name] if time else []
        blocks = tuple(sums_first(block, timed) for block in spreader.blocks)
        return replace(source, main=sums_first(main.block, timed), blocks=blocks)

    spreader, main = spread(0, 0)
    shorter = _starts(spreader, axes)
    starts = tuple((axis, places) for axis, places in shorter.items() if axis in dict(mesh.axes))
    ranks = variant_ranks(mesh, starts)
    if time is None:
        programs = tuple(local(rank, 0) for rank in ranks)
        tags = untimed(programs[0])
    else:
        firsts = (0, *shorter.get(time.name, ()))
        kinds = [[_named(local(rank, first), first) for first in firsts] for rank in ranks]
        programs, tags = _unrolled(kinds, firsts, time)
    return Kinds(
        mesh=mesh,
        starts=starts,
        programs=programs,
        tags=tags,
        outputs=main.outputs,
        placements=tuple(spreader.placements),
    )


def _unrolled(
    kinds: Sequence[Sequence[Program]], firsts: Sequence[int], time: Axis
) -> tuple[tuple[Program, ...], list[Tag]]:
    """The programs of each kind of chip, one for the parts from each of `firsts` on, as one."""
    # What differs by part on one chip is written once a part on all.
    sized = unequal(kinds)
    made = [
        unroll(
            [sizes[bisect_right(firsts, part) - 1] for part in range(time.size)], time.name, sized
        )
        for sizes in kinds
    ]
    return tuple(program for program, _ in made), made[0][1]


def _named(made: Program, first: int) -> Program:
    """`made`, which is for the parts in time from `first` on, with names of its own for blocks."""
    if first == 0:
        return made

    def calling(block: Block) -> Block:
        ops = (
            replace(op, block=f"{op.block}@from{first}") if op.name == CALL else op
            for op in block.ops
        )
        return replace(block, ops=tuple(ops))

    blocks = (replace(calling(block), name=f"{block.name}@from{first}") for block in made.blocks)
    return replace(made, main=calling(made.main), blocks=tuple(blocks))


def _starts(spreader: Spreader, axes: tuple[Axis, ...]) -> dict[str, tuple[int, ...]]:
    """Where along which axes chips, or parts in time, begin to have smaller pieces."""
    mesh = mesh_of(axes)
    found = {each for cuts, size in spreader.uneven for each in breaks(cuts, size, mesh)}
    return {
        name: tuple(sorted(start for axis, start in found if axis == name))
        for name, _ in mesh.axes
        if any(axis == name for axis, _ in found)
    }
