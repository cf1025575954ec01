"""Writes the program of one chip: every op on local shapes, moves inserted where layouts differ."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from supernode.errors import SupernodeError
from supernode.ir import (
    CALL,
    NOWHERE,
    Arg,
    Block,
    HostType,
    Op,
    Program,
    Site,
    Type,
    Value,
    map_values,
    print_typed,
)
from supernode.ops import MEAN, Formula, Row, row
from supernode.partition.assign import Assignment
from supernode.partition.choose import Choice, NeedsExpansion, Question, choose
from supernode.partition.classes import Classes, is_host
from supernode.partition.cuts import factor_of, layout_of
from supernode.partition.emit import Emitter
from supernode.partition.line import Axis
from supernode.partition.wanted import Wanted, wanted_in
from supernode.plan import (
    Layout,
    Placement,
    cut,
    cut_axis,
    cut_groups,
    is_uneven,
    piece_size,
)

Preference = tuple[int, str]
"""How much a split is preferred (0 first), and the cut."""
Preferences = dict[str, dict[str, Preference]]
Signature = tuple[str, tuple[Layout | None, ...], tuple[tuple[int, Layout], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBlock:
    """A block for given layouts of its inputs, with the layouts of its outputs."""

    block: Block
    outputs: tuple[Layout | None, ...]


class Spreader:
    """Spreads the blocks of one Program over some axes, as the chip at the coordinates `at` runs
    them; blocks met again in the same layouts are shared.

    What is chosen is the same on every chip, so programs of two of them differ in sizes only.
    `uneven` are the cuts met that may give chips unequal parts, with the sizes of the dims.
    """

    def __init__(
        self,
        program: Program,
        classes: Classes,
        assignment: Assignment,
        axes: tuple[Axis, ...],
        at: Mapping[str, int],
    ) -> None:
        self.program = program
        self.classes = classes
        self.assignment = assignment
        self.axes = axes
        self.at = at
        self.uneven: set[tuple[tuple[str, ...], int]] = set()
        self.placements: list[Placement] = []
        self.blocks: list[Block] = []
        self._known: dict[Signature, LocalBlock] = {}

    def main(self, outputs: tuple[Layout | None, ...]) -> LocalBlock:
        """The local main; `outputs[i]` is the layout output `i` must leave in, None: any whole
        or split one."""
        main = self.program.main
        homes = dict(zip((v.id for v in main.inputs), self.assignment.homes, strict=True))
        fixed = {key: home for key, home in homes.items() if home is not None}
        ends = {v.id: goal for v, goal in zip(main.outputs, outputs, strict=True) if goal}
        wanted = wanted_in(main, ends, fixed, self.program)
        for value, reason in zip(main.inputs, self.assignment.reasons, strict=True):
            if (home := homes[value.id]) is not None:
                self.note("main", value, home, reason)
        return self._spread(main, self.assignment.homes, wanted, outputs, "main")

    def note(self, block: str, value: Value, layout: Layout, reason: str) -> None:
        """Records where a value lies, as its chips hold it: parts in time are none of them."""
        for axis in self.axes:
            if axis.scheme.time:
                layout = layout.without(axis.name)
        self.placements.append(Placement(block=block, value=value.id, layout=layout, reason=reason))

    def _spread(
        self,
        block: Block,
        inputs: tuple[Layout | None, ...],
        wanted: Wanted,
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
        walk = _Walk(self, block, emitter, wanted)
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
            ends={v: ends for (name, v), ends in routing.ends.items() if name == block.name},
        )

    def specialise(self, op: Op, inputs: tuple[Layout | None, ...], wanted: Wanted) -> LocalBlock:
        """The local form of the block that `op` calls."""
        callee = self.program.block(op.block)
        ends = tuple(
            (formal.id, wanted[actual.id])
            for formal, actual in zip(callee.outputs, op.outputs, strict=True)
            if actual.id in wanted
        )
        key: Signature = (op.block, inputs, ends)
        if key not in self._known:
            fixed = {v.id: lay for v, lay in zip(callee.inputs, inputs, strict=True) if lay}
            kept = {k: lay for k, lay in fixed.items() if not lay.partial}
            inside = wanted_in(callee, dict(ends), kept, self.program)
            goals = dict(ends)
            number = sum(block.name.split(".")[0] == op.block for block in self.blocks)
            name = f"{op.block}.{number}" if number else op.block
            spread = self._spread(
                callee, inputs, inside, tuple(goals.get(v.id) for v in callee.outputs), name
            )
            self.blocks.append(spread.block)
            self._known[key] = spread
        return self._known[key]


class _Walk:
    """One pass over the ops of a block."""

    def __init__(self, spreader: Spreader, block: Block, emitter: Emitter, wanted: Wanted) -> None:
        self.spreader = spreader
        self.block = block
        self.emitter = emitter
        self.wanted = wanted
        defined = [*block.inputs, *(value for op in block.ops for value in op.outputs)]
        self.routing = spreader.classes.routing
        self.next_temporary = 1 + max((value.id for value in defined), default=0)

    def op(self, op: Op, position: int) -> None:
        """Emits the local form of `op`, the `position`-th of the block."""
        if op.name == CALL:
            self._call(op)
        elif is_host(op.name):
            self._host(op)
        else:
            formula = self.spreader.classes.formula(self.block.name, position)
            preferences = self._preferences(op, formula)
            rule = self.routing.rows.get((self.block.name, position))
            try:
                self._compute(op, formula, preferences, rule)
            except SupernodeError as error:
                error.complete(op=print_typed(op, self._layout_note), where=str(op.site))
                raise

    def _layout_note(self, value: Value) -> str:
        held = self.emitter.held.get(value.id)
        return "" if held is None else f" {held.layout}"

    def _preferences(self, op: Op, formula: Formula) -> Preferences:
        """Which factors of the op belong to a class that an axis splits, and how it cuts them."""
        found: Preferences = {}
        classes, units = self.spreader.classes, self.spreader.assignment.units
        for axis, chosen in self.spreader.assignment.split.items():
            found[axis] = {}
            for value, dims in zip(
                (*op.inputs, *op.outputs), formula.inputs + formula.outputs, strict=True
            ):
                for i, dim in enumerate(dims):
                    for groups, part in classes.parts(self.block.name, value, i).items():
                        if part in chosen:
                            cut_ = cut(axis, groups, units.get(part, 0))
                            if (where := factor_of(dim, cut_, formula.sizes)) is not None:
                                found[axis].setdefault(where[0], (chosen[part], where[1]))
        return found

    def _compute(
        self, op: Op, formula: Formula, preferences: Preferences, rule: Row | None = None
    ) -> None:
        question = Question(
            op=op,
            row=rule or row(op),
            formula=formula,
            preferences=preferences,
            wanted=self.wanted,
            emitter=self.emitter,
            pinned=self._pinned(op, formula),
            rows=frozenset(
                i
                for i, value in enumerate(op.inputs)
                if (self.block.name, value.id) in self.routing.sorted_rows
            ),
            experts=self.spreader.assignment.experts,
            counts=any((self.block.name, v.id) in self.routing.counts for v in op.outputs)
            and op.name != "aten.histc",
        )
        try:
            choice = choose(question)
        except NeedsExpansion:
            self._expand(op, formula, preferences)
            return
        self._emit(question, choice)

    def _pinned(self, op: Op, formula: Formula) -> dict[int, int]:
        """The operands that stay as they are cut, with the dim; unread ones may lie anyhow."""
        pinned = self.routing.pinned
        return {
            i: pinned[self.block.name, value.id]
            for i, value in enumerate(op.inputs)
            if (self.block.name, value.id) in pinned and i not in formula.unread
        }

    def _expand(self, op: Op, formula: Formula, preferences: Preferences) -> None:
        """Replaces the op by several; dims of new values take the preferences of the old ones."""

        def fresh(type_: Type) -> Value:
            self.next_temporary += 1
            return Value(self.next_temporary, type_)

        expand = row(op).expand
        assert expand is not None
        steps = expand(op, fresh)
        if steps is None:
            # It can't be expanded after all.
            self._compute(op, formula, {}, replace(row(op), expand=None))
            return
        known: dict[tuple[int, int], dict[str, Preference]] = {}
        for value, dims in zip(
            (*op.inputs, *op.outputs), formula.inputs + formula.outputs, strict=True
        ):
            for i, dim in enumerate(dims):
                for axis, chosen in preferences.items():
                    if len(dim) == 1 and dim[0] in chosen:
                        known.setdefault((value.id, i), {})[axis] = chosen[dim[0]]
        for step in steps:
            self._expanded_step(step, known)

    def _expanded_step(self, step: Op, known: dict[tuple[int, int], dict[str, Preference]]) -> None:
        formula = row(step).formula(step)
        values = (*step.inputs, *step.outputs)
        every = formula.inputs + formula.outputs
        factors: dict[str, dict[str, Preference]] = {}
        for value, dims in zip(values, every, strict=True):
            for i, dim in enumerate(dims):
                if dim and (value.id, i) in known:
                    factors.setdefault(dim[0], known[value.id, i])
        for value, dims in zip(values, every, strict=True):
            for i, dim in enumerate(dims):
                if dim and dim[0] in factors:
                    known.setdefault((value.id, i), factors[dim[0]])
        preferences: Preferences = {axis: {} for axis in self.spreader.assignment.split}
        for factor, by_axis in factors.items():
            for axis, preference in by_axis.items():
                preferences[axis][factor] = preference
        self._compute(step, formula, preferences)

    def _emit(self, question: Question, choice: Choice) -> None:
        op, formula, emitter = question.op, question.formula, self.emitter
        locals_: list[Value] = []
        for position, value in enumerate(op.inputs):
            if isinstance(value.type, HostType):
                locals_.append(emitter.hosts[value.id])
                continue
            current = emitter.held[value.id].layout
            if position in formula.unread:
                locals_.append(emitter.held[value.id].local)
                continue
            if choice.experts and position in formula.partial.get("t", ()):
                locals_.append(self._group_ends(question, choice.experts))
                continue
            apart = {*choice.passing, *_partial_axes(formula, choice, position)}
            target = Layout(
                layout_of(formula.inputs[position], choice.split, formula.sizes),
                tuple(p for p in current.partial if p[0] in apart),
            )
            locals_.append(emitter.get(value, target, op.site))
        layouts = [self._output_layout(formula, choice, i) for i in range(len(op.outputs))]
        self._emit_op(question, choice, locals_, layouts)

    def _group_ends(self, question: Question, axis: str) -> Value:
        """Of the groups of the experts that this chip has."""
        emitter, op = self.emitter, question.op
        (rows, dim), *_ = question.pinned.items()
        ends = emitter.held[op.inputs[2].id].local
        held = emitter.held[op.inputs[rows].id].local
        return emitter.experts.ends(ends, axis, held.tensor.shape[dim], op.site)

    def _output_layout(self, formula: Formula, choice: Choice, output: int) -> Layout:
        dims = layout_of(formula.outputs[output], choice.split, formula.sizes)
        partial = dict(choice.passing)
        complete = {cut_axis(each) for dim in dims for each in dim}
        for factor, cuts in choice.split.items():
            kind = formula.kind(factor, output)
            if kind is not None:
                # Rows of the own experts give all of what belongs to these.
                apart = [axis for axis in map(cut_axis, cuts) if axis not in complete]
                partial.update(dict.fromkeys(apart, kind))
        order = [axis.name for axis in self.spreader.axes]
        return Layout(dims, tuple((axis, partial[axis]) for axis in order if axis in partial))

    def _emit_op(
        self, question: Question, choice: Choice, locals_: list[Value], layouts: list[Layout]
    ) -> None:
        op, rule, emitter = question.op, question.row, self.emitter
        types = tuple(
            emitter.local_type(value.type, layout)
            for value, layout in zip(op.outputs, layouts, strict=True)
        )
        outputs = tuple(emitter.fresh(type_) for type_ in types)
        # In order, not by id: an op may read one value twice, in two layouts.
        operands = iter(locals_)
        args = tuple(_in_order(arg, operands) for arg in op.args)
        kwargs = tuple((name, _in_order(arg, operands)) for name, arg in op.kwargs)
        mapped = replace(op, args=args, kwargs=kwargs, outputs=outputs)
        emitter.ops.append(rule.local(mapped, choice.split, types))
        moves = rule.moves and len(op.inputs) == 1 == len(op.outputs)
        for i, (value, layout, local) in enumerate(zip(op.outputs, layouts, outputs, strict=True)):
            weighed = self._weighed(question.formula, choice, i, local, op.site)
            emitter.define(value, layout, weighed, op if moves else None)
            self.spreader.note(
                self.block.name, value, layout, "; ".join((op.name, *choice.reasons))
            )

    def _weighed(
        self, formula: Formula, choice: Choice, output: int, local: Value, site: Site
    ) -> Value:
        """An output, with the mean of an unequal part weighed, so that the mean over the chips is
        that of all."""
        mesh, weight, uneven = self.emitter.mesh, 1.0, False
        for factor, cuts in choice.split.items():
            size = formula.sizes[factor]
            if formula.kind(factor, output) == MEAN and is_uneven(cuts, size, mesh):
                chips = math.prod(mesh.axis_size(cut_axis(each)) for each in cuts)
                weight *= piece_size(cuts, size, mesh, self.emitter.at) * chips / size
                uneven = True
        if not uneven:
            return local
        return self.emitter.emit("aten.mul.Scalar", (local, weight), local.type, site)

    def _host(self, op: Op) -> None:
        emitter = self.emitter
        locals_ = {
            value.id: emitter.hosts[value.id]
            if isinstance(value.type, HostType)
            else emitter.get(value, Layout.whole(len(value.tensor.shape)), op.site)
            for value in op.inputs
        }
        args = map_values(op.args, locals_)
        assert isinstance(args, tuple)
        outputs = tuple(emitter.fresh(value.type) for value in op.outputs)
        for value, local in zip(op.outputs, outputs, strict=True):
            emitter.hosts[value.id] = local
        emitter.ops.append(replace(op, args=args, outputs=outputs))

    def _call(self, op: Op) -> None:
        emitter = self.emitter
        for value in op.inputs:
            # Else every block that reads the parts would add them up for itself.
            if (self.block.name, value.id) in self.routing.counts:
                continue
            if value.id in emitter.held and (now := emitter.held[value.id].layout).partial:
                emitter.get(value, self.wanted.get(value.id, Layout(now.dims)), op.site)
        inputs = tuple(
            None if isinstance(v.type, HostType) else emitter.held[v.id].layout for v in op.inputs
        )
        spread = self.spreader.specialise(op, inputs, self.wanted)
        args = tuple(
            emitter.hosts[v.id] if layout is None else emitter.held[v.id].local
            for v, layout in zip(op.inputs, inputs, strict=True)
        )
        outputs = tuple(emitter.fresh(value.type) for value in spread.block.outputs)
        emitter.ops.append(replace(op, args=args, outputs=outputs, block=spread.block.name))
        for value, layout, local in zip(op.outputs, spread.outputs, outputs, strict=True):
            if layout is None:
                emitter.hosts[value.id] = local
            else:
                emitter.define(value, layout, local)

    def results(
        self, ends: tuple[Layout | None, ...]
    ) -> tuple[tuple[Value, ...], tuple[Layout | None, ...]]:
        """What the block hands out, moved to where it must end up."""
        sites = {value.id: op.site for op in self.block.ops for value in op.outputs}
        locals_: list[Value] = []
        layouts: list[Layout | None] = []
        for value, goal in zip(self.block.outputs, ends, strict=True):
            if isinstance(value.type, HostType):
                locals_.append(self.emitter.hosts[value.id])
                layouts.append(None)
                continue
            layout = goal or self.emitter.held[value.id].layout
            if goal is None and self.block is self.spreader.program.main:
                layout = _plain(layout, self.emitter.time)
            site = sites.get(value.id, NOWHERE)
            locals_.append(self.emitter.get(value, layout, site))
            layouts.append(layout)
        return tuple(locals_), tuple(layouts)


def _partial_axes(formula: Formula, choice: Choice, position: int) -> Iterator[str]:
    """The axes along which an operand is read as it is on each chip, a partial sum."""
    for factor, positions in formula.partial.items():
        if position in positions:
            yield from map(cut_axis, choice.split.get(factor, ()))


def _in_order(arg: Arg, values: Iterator[Value]) -> Arg:
    """`arg` with each value in it replaced by the next of `values`."""
    if isinstance(arg, Value):
        return next(values)
    if isinstance(arg, tuple):
        return tuple(_in_order(item, values) for item in arg)
    return arg


def _plain(layout: Layout, time: tuple[str, ...]) -> Layout:
    """The same without partial results, parts in time and cuts of groups, as a plan may hand it
    out."""
    dims = tuple(dim if all(cut_groups(each) == 1 for each in dim) else () for dim in layout.dims)
    plain = Layout(dims)
    for axis in time:
        plain = plain.without(axis)
    return plain
