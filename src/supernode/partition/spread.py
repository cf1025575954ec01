"""Writes the program of one chip: every op on local shapes, moves inserted where layouts differ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

from supernode.ir import Block, Op, Program, Value
from supernode.partition.assign import Assignment
from supernode.partition.classes import Classes, Part
from supernode.partition.emit import Emitter
from supernode.partition.walk import Preference, Walk
from supernode.partition.wanted import Wanted, terms_in, wanted_in
from supernode.plan import Layout, Placement

Ends = tuple[tuple[int, Layout], ...]
Signature = tuple[str, tuple[Layout | None, ...], Ends, Ends]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBlock:
    """A block for given layouts of its inputs, with the layouts of its outputs."""

    block: Block
    outputs: tuple[Layout | None, ...]


class Spreader:
    """Spreads the blocks of one Program over the axes of an assignment, as the chip at the
    coordinates `at` runs them; blocks met again in the same layouts are shared.

    What is chosen is the same on every chip, so programs of two of them differ in sizes only.
    `uneven` are the cuts met that may give chips unequal parts, with the sizes of the dims.
    `is_part` says that the program is one stage of another, microbatch after microbatch.
    """

    def __init__(
        self,
        program: Program,
        classes: Classes,
        assignment: Assignment,
        at: Mapping[str, int],
        is_part: bool = False,
    ) -> None:
        self.program = program
        self.classes = classes
        self.assignment = assignment
        self.axes = assignment.axes
        self.at = at
        self.is_part = is_part
        self.uneven: set[tuple[tuple[str, ...], int]] = set()
        self.placements: list[Placement] = []
        self.blocks: list[Block] = []
        self._known: dict[Signature, LocalBlock] = {}
        self._ways: dict[tuple[str, Part, int], Preference | None] = {}

    def main(self, outputs: tuple[Layout | None, ...]) -> LocalBlock:
        """The local main; `outputs[i]` is the layout output `i` must leave in, None: any whole
        or split one."""
        main = self.program.main
        homes = dict(zip((v.id for v in main.inputs), self.assignment.homes, strict=True))
        fixed = {key: home for key, home in homes.items() if home is not None}
        ends = {v.id: goal for v, goal in zip(main.outputs, outputs, strict=True) if goal}
        wanted = wanted_in(main, ends, fixed, self.program)
        terms = terms_in(main, wanted, self.program) if self.is_part else {}
        for value, reason in zip(main.inputs, self.assignment.reasons, strict=True):
            if (home := homes[value.id]) is not None and not self.is_part:
                self.note("main", value, value, home, reason)
        return self._spread(main, self.assignment.homes, wanted, terms, outputs, "main")

    def way(self, axis: str, part: Part, groups: int) -> Preference | None:
        """How an axis cuts a part inside of so many groups, if it does."""
        key = (axis, part, groups)
        if key not in self._ways:
            chosen, units = self.assignment.split[axis], self.assignment.units
            self._ways[key] = self.classes.way(part, groups, axis, chosen, units)
        return self._ways[key]

    def note(self, block: str, value: Value, local: Value, layout: Layout, reason: str) -> None:
        """Records where a value of a block lies; of one stage, where the local one does."""
        known = local if self.is_part else value
        placed = Placement(block=block, value=known.id, layout=layout, reason=reason)
        if self.is_part:
            placed = replace(placed, shape=value.tensor.shape)
        self.placements.append(placed)

    def _spread(
        self,
        block: Block,
        inputs: tuple[Layout | None, ...],
        wanted: Wanted,
        terms: Wanted,
        ends: tuple[Layout | None, ...],
        name: str,
    ) -> LocalBlock:
        emitter = self._emitter(block)
        formals: list[Value] = []
        for value, layout in zip(block.inputs, inputs, strict=True):
            local = emitter.fresh(
                value.type if layout is None else emitter.local_type(value.type, layout)
            )
            formals.append(local)
            if layout is None:
                emitter.hosts[value.id] = local
            else:
                emitter.define(value, layout, local)
        noted = name if self.is_part else block.name
        walk = Walk(self, block, emitter, wanted, terms, noted)
        for position, op in enumerate(block.ops):
            walk.op(op, position)
        results, layouts = walk.results(ends)
        self.uneven |= emitter.uneven
        local_block = Block(
            name=name,
            inputs=tuple(formals),
            ops=tuple(emitter.ops),
            outputs=results,
        )
        return LocalBlock(block=local_block, outputs=layouts)

    def _emitter(self, block: Block) -> Emitter:
        routing = self.classes.routing
        return Emitter(
            self.axes,
            self.at,
            counts={value for name, value in routing.counts if name == block.name},
            keys={value for name, value in routing.keys if name == block.name},
            ends={v: ends for (name, v), ends in routing.ends.items() if name == block.name},
        )

    def specialise(
        self, op: Op, inputs: tuple[Layout | None, ...], wanted: Wanted, terms: Wanted
    ) -> LocalBlock:
        """The local form of the block that `op` calls."""
        callee = self.program.block(op.block)
        ends, of_sums = _ends(callee, op, wanted), _ends(callee, op, terms)
        key: Signature = (op.block, inputs, ends, of_sums)
        if key not in self._known:
            fixed = {v.id: lay for v, lay in zip(callee.inputs, inputs, strict=True) if lay}
            kept = {k: lay for k, lay in fixed.items() if not lay.partial}
            inside = wanted_in(callee, dict(ends), kept, self.program)
            goals, given = dict(ends), dict(of_sums)
            if self.is_part:
                given |= terms_in(callee, given | goals, self.program)
            taken = {block.name for block in self.blocks}
            names = (f"{op.block}.{number}" if number else op.block for number in count())
            name = next(name for name in names if name not in taken)
            spread = self._spread(
                callee, inputs, inside, given, tuple(goals.get(v.id) for v in callee.outputs), name
            )
            self.blocks.append(spread.block)
            self._known[key] = spread
        return self._known[key]


def _ends(callee: Block, op: Op, layouts: Wanted) -> Ends:
    """What `layouts` says of the outputs of a call, by the ids that they have inside."""
    pairs = zip(callee.outputs, op.outputs, strict=True)
    return tuple((inner.id, layouts[outer.id]) for inner, outer in pairs if outer.id in layouts)
