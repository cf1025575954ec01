"""Plan: who computes what, where: a mesh, a layout for every value, one program for all chips."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from supernode.errors import UnknownName, near_matches
from supernode.ir import Program, Value, elsewhere, print_program, verify
from supernode.plan.away import away_bytes, run_away_bytes
from supernode.plan.layout import AT_PEERS, Layout
from supernode.plan.memory import PlanMemory, memory, run_memory
from supernode.plan.mesh import Mesh

Starts = tuple[tuple[str, tuple[int, ...]], ...]
"""Axes, with the coordinates along each at which chips begin to have smaller pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How one value of the global Program is laid out, and why.

    `block` is the name of the block that defines the value (`main` or a repeated one). Where stages
    have layouts of their own, `stage` is one of them: block and value are then those of the program
    of its chips, which works on microbatches, and `shape` is that of the whole value.
    """

    block: str
    value: int
    layout: Layout
    reason: str
    stage: int | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One Program on one mesh.

    `local` is the program that every chip runs: the ops of `program` on local shapes, with
    `fabric.*` ops where chips talk and `local.*` ops that depend on the chip's coordinates.
    Its inputs and outputs match those of `program` one to one; `inputs[i]` and `outputs[i]` are
    their layouts (None for host numbers).

    Where an axis cuts a dim unevenly, `local` is that of chip 0, whose pieces are the largest, and
    `variants` are the same ops on smaller ones: `starts` says at which coordinates along which
    axes these begin, the last axis varying fastest. The stages of a pipeline are variants with
    ops of their own, along the first of these axes; where they have axes of their own, `inside` are
    the starts in each of them. `local_of` gives the program of any chip.
    """

    program: Program
    mesh: Mesh
    layout: str
    local: Program
    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    placements: tuple[Placement, ...]
    starts: Starts = ()
    variants: tuple[Program, ...] = ()
    inside: tuple[Starts, ...] = ()

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs of all kinds of chips."""
        return (self.local, *self.variants)

    @property
    def is_staged(self) -> bool:
        """Whether chips run different ops, each with weights of its own."""
        return any(layout is not None and layout.only for layout in self.inputs)

    def stages(self) -> tuple[tuple[int, Program], ...]:
        """A chip of each stage of the pipeline, with its program; without one, chip 0 with the
        largest pieces."""
        starts = self.starts[:1] if self.is_staged else ()
        return tuple((rank, self.local_of(rank)) for rank in variant_ranks(self.mesh, starts))

    def local_of(self, rank: int) -> Program:
        """The program of chip `rank`."""
        return self.programs[self._kind(rank)]

    def alike(self, rank: int) -> int:
        """The first chip that runs the very program of chip `rank`."""
        return self.kinds()[self._kind(rank)]

    def kinds(self) -> tuple[int, ...]:
        """The first chip of each kind, in the order of `programs`."""
        if not self.inside:
            return variant_ranks(self.mesh, self.starts)
        stages = zip(self.mesh.stages, self.inside, strict=True)
        return tuple(rank for mesh, starts in stages for rank in variant_ranks(mesh, starts))

    def _kind(self, rank: int) -> int:
        at = self.mesh.coordinates(rank)
        first = _place(self.starts, at)
        if not self.inside:
            return first
        before = (math.prod(len(each) + 1 for _, each in starts) for starts in self.inside[:first])
        return sum(before) + _place(self.inside[first], at)

    def memory(self, *, in_place: bool = False) -> PlanMemory:
        """What a step takes on a chip of each kind, at its peak and over time, by liveness.

        By default where `run` executes it: with the next epoch of the state beside the old one.
        `in_place` is a trainer that updates state in place, as simulated machines do. Example:

            print(plan.memory())
            plan.memory().peak_bytes <= 8 * GIB
        """
        find = memory if in_place else run_memory
        pairs = zip(self.kinds(), self.programs, strict=True)
        return PlanMemory(
            chips={
                r: find(local).lending(self.lent_bytes(r, in_place=in_place)) for r, local in pairs
            }
        )

    def lent_bytes(self, rank: int, *, in_place: bool = False) -> int:
        """What chip `rank` keeps for the one at the other end of the mesh, if a layout says so."""
        find = away_bytes if in_place else run_away_bytes
        return find(self.local_of(self.mesh.size - 1 - rank)).get(AT_PEERS, 0)

    def largest(self, rank: int) -> Program:
        """The program with the same ops as that of chip `rank` and the largest pieces."""
        return self.programs[self.largest_kind(rank)]

    def largest_kind(self, rank: int) -> int:
        """Its place in `programs`."""
        if not self.is_staged:
            return 0
        axis, _ = self.starts[0]
        return self._kind(self.mesh.rank({axis: self.mesh.coordinates(rank)[axis]}))

    def __str__(self) -> str:
        head = f"plan {self.program.name} on {self.mesh} ({self.layout or 'one chip'})"
        layouts = dict(self._local_layouts())
        return head + "\n" + print_program(self.local, lambda v: layouts.get(v.id, ""))

    def _local_layouts(self) -> Iterator[tuple[int, str]]:
        for values, layouts in (
            (self.local.main.inputs, self.inputs),
            (self.local.main.outputs, self.outputs),
        ):
            for value, layout in zip(values, layouts, strict=True):
                if layout is not None:
                    yield value.id, f" {layout}"

    def explain(self, name: str) -> str:
        """How the input or output `name` (`lm_head.weight`) is laid out, and why.

        Raises:
            UnknownName: no input or output has that name; the nearest ones are given.
        """
        for ports, values, layouts in (
            (self.program.inputs, self.program.main.inputs, self.inputs),
            (self.program.outputs, self.program.main.outputs, self.outputs),
        ):
            for port, value, layout in zip(ports, values, layouts, strict=True):
                if port.name == name:
                    return self._explain(name, value, layout)
        known = [port.name for port in self.program.inputs + self.program.outputs]
        raise UnknownName(f"the plan has no value named {name!r}", fix=near_matches(name, known))

    def _explain(self, name: str, value: Value, layout: Layout | None) -> str:
        if layout is None:
            return f"{name}: {value.type}, the same on every chip"
        shape = value.tensor.shape
        chips = layout.holders(self.mesh)
        local = layout.local_shape(shape, self.mesh, chips[0])
        most = "at most " if self.variants and layout.has_units else ""
        on = f"{most}{list(local)} on each of {len(chips)} chips"
        lines = [f"{name}: {value.type} {layout}, {on}"]
        here = ("main", value.id, None)
        reasons = [p.reason for p in self.placements if (p.block, p.value, p.stage) == here]
        return "\n".join(lines + [f"  {reason}" for reason in reasons])


def _place(starts: Starts, at: Mapping[str, int]) -> int:
    """The kind of the chip at `at` among those that `starts` tell apart."""
    index = 0
    for axis, each in starts:
        index = index * (len(each) + 1) + bisect_right(each, at[axis])
    return index


def variant_ranks(mesh: Mesh, starts: Starts) -> tuple[int, ...]:
    """A chip of each variant, in their order; the first is chip 0."""
    axes = [axis for axis, _ in starts]
    places = product(*((0, *coordinates) for _, coordinates in starts))
    return tuple(mesh.rank(dict(zip(axes, place, strict=True))) for place in places)


def verify_plan(plan: Plan) -> Plan:
    """`plan` itself when its local programs are legal, match its layouts and have the same ops."""
    main = plan.program.main
    inputs = _wholes(main.inputs, plan.inputs, plan.mesh)
    outputs = _wholes(main.outputs, plan.outputs, plan.mesh)
    for rank in plan.kinds():
        local, largest = plan.local_of(rank), plan.largest(rank)
        verify(local)
        _verify_shapes(plan.mesh, rank, local.main.inputs, inputs)
        _verify_shapes(plan.mesh, rank, local.main.outputs, outputs)
        _verify_places(plan, local)
        alike = local is largest or list(_op_names(local)) == list(_op_names(largest))
        assert alike, "chips run other ops"
    return plan


def _op_names(program: Program) -> Iterator[str]:
    return (op.name for block in program.all_blocks() for op in block.ops)


_Shape = tuple[int, ...]
_Whole = tuple[Layout, _Shape, tuple[_Shape, _Shape] | None]
"""A layout, the shape of what it lays out, and that of the piece of a chip that has one and of one
that has none; None where chips have pieces of unequal sizes."""


def _wholes(
    values: tuple[Value, ...], layouts: tuple[Layout | None, ...], mesh: Mesh
) -> list[_Whole | None]:
    """What is the same for all chips, found once: there may be many chips and many values."""
    found: list[_Whole | None] = []
    for value, layout in zip(values, layouts, strict=True):
        if layout is None:
            found.append(None)
            continue
        assert not layout.partial, f"{value} leaves the plan as a partial result"
        shape, alike = value.tensor.shape, None
        if not layout.has_units:
            there = mesh.rank(dict(layout.only))
            away = mesh.rank({axis: 0 if place else 1 for axis, place in layout.only})
            alike = (
                layout.local_shape(shape, mesh, there),
                layout.local_shape(shape, mesh, away),
            )
        found.append((layout, shape, alike))
    return found


def _verify_shapes(
    mesh: Mesh, rank: int, pieces: tuple[Value, ...], wholes: list[_Whole | None]
) -> None:
    at = mesh.coordinates(rank)
    for piece, whole in zip(pieces, wholes, strict=True):
        if whole is None:
            continue
        layout, shape, alike = whole
        if alike is None:
            expected = layout.local_shape(shape, mesh, rank)
        else:
            here = all(at[axis] == place for axis, place in layout.only)
            expected = alike[0 if here else 1]
        assert piece.tensor.shape == expected


def _verify_places(plan: Plan, local: Program) -> None:
    away = elsewhere(local.main)
    for value, layout in zip(local.main.inputs, plan.inputs, strict=True):
        if layout is not None and value.type.size_bytes:
            assert away.get(value.id, "") == layout.place, f"{value} lives in another place"
