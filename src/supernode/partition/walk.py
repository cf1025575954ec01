"""The ops of one block, in order: what each does along every axis, and its local form."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from supernode.errors import SupernodeError
from supernode.ir import (
    CALL,
    NOWHERE,
    RECEIVE,
    SEND,
    Arg,
    Block,
    HostType,
    Op,
    Site,
    Type,
    Value,
    filled,
    map_values,
    print_typed,
)
from supernode.ops import MEAN, Formula, Row, row
from supernode.ops.formula import SUM
from supernode.partition.choose import Choice, NeedsExpansion, Question, among_experts, choose
from supernode.partition.classes import is_host
from supernode.partition.cuts import factor_of, layout_of
from supernode.partition.emit import Emitter
from supernode.partition.letters import as_handed_out, letter
from supernode.partition.routing import SORTS
from supernode.partition.wanted import Wanted, scattered
from supernode.plan import Layout, cut_axis, is_uneven, piece_size

if TYPE_CHECKING:
    from supernode.partition.spread import Spreader

Preference = tuple[int, str]
"""How much a split is preferred (0 first), and the cut."""
Preferences = dict[str, dict[str, Preference]]


class Walk:
    """One pass over the ops of a block; placements of its values are noted under `noted`.

    `wanted` and `terms` say of gradients, and of what is added up to one, where these are to lie.
    """

    def __init__(
        self,
        spreader: "Spreader",
        block: Block,
        emitter: Emitter,
        wanted: Wanted,
        terms: Wanted,
        noted: str,
    ) -> None:
        self.spreader = spreader
        self.block = block
        self.emitter = emitter
        self.wanted = wanted
        self.terms = terms
        self.noted = noted
        defined = [*block.inputs, *(value for op in block.ops for value in op.outputs)]
        self.routing = spreader.classes.routing
        self.next_temporary = 1 + max((value.id for value in defined), default=0)

    def op(self, op: Op, position: int) -> None:
        """Emits the local form of `op`, the `position`-th of the block."""
        if op.name == CALL:
            self._call(op)
        elif op.name in (SEND, RECEIVE):
            letter(self, op)
        elif is_host(op.name):
            self._host(op)
        else:
            formula = self.spreader.classes.formula(self.block.name, position)
            preferences = self._preferences(op, formula)
            at = self.block.name, position
            rule = self.routing.rows.get(at)
            # The parts of an expert get the same rows.
            rows = op.name in SORTS and at in self.routing.formulas
            alike = self.spreader.assignment.inside if rows else frozenset[str]()
            try:
                keyed = at in self.routing.keyed
                self._compute(op, formula, preferences, rule, alike, keyed=keyed)
            except SupernodeError as error:
                error.complete(op=print_typed(op, self._layout_note), where=str(op.site))
                raise

    def _layout_note(self, value: Value) -> str:
        held = self.emitter.held.get(value.id)
        return "" if held is None else f" {held.layout}"

    def _preferences(self, op: Op, formula: Formula) -> Preferences:
        """Which factors of the op belong to a class that an axis splits, and how it cuts them."""
        found: Preferences = {}
        classes = self.spreader.classes
        for axis in self.spreader.assignment.split:
            found[axis] = {}
            for value, dims in zip(
                (*op.inputs, *op.outputs), formula.inputs + formula.outputs, strict=True
            ):
                for i, dim in enumerate(dims):
                    for groups, part in classes.parts(self.block.name, value, i).items():
                        way = self.spreader.way(axis, part, groups)
                        if way and (where := factor_of(dim, way[1], formula.sizes)) is not None:
                            found[axis].setdefault(where[0], (way[0], where[1]))
        return found

    def _compute(
        self,
        op: Op,
        formula: Formula,
        preferences: Preferences,
        rule: Row | None = None,
        alike: frozenset[str] = frozenset(),
        *,
        keyed: bool = False,
    ) -> None:
        experts = self.spreader.assignment.experts
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
            experts=experts,
            taken=experts in self.spreader.assignment.inside,
            keyed=keyed,
            counts=any((self.block.name, v.id) in self.routing.counts for v in op.outputs)
            and op.name != "aten.histc",
            alike=alike,
        )
        if experts and question.taken and not among_experts(question):
            for i, dim in question.pinned.items():
                self.emitter.place_rows(op.inputs[i], dim, experts, op.site)
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
            parts = {axis: kind for axis, kind in current.partial if axis in apart}
            parts |= dict.fromkeys(choice.joining.get(position, ()), SUM)
            target = Layout(
                layout_of(formula.inputs[position], choice.split, formula.sizes),
                self._ordered(parts),
            )
            locals_.append(emitter.get(value, target, op.site))
        layouts = [self._output_layout(formula, choice, i) for i in range(len(op.outputs))]
        self._emit_op(question, choice, locals_, layouts)

    def _group_ends(self, question: Question, axis: str) -> Value:
        """Of the groups of the experts that this chip has."""
        emitter, op = self.emitter, question.op
        (rows, dim), *_ = question.pinned.items()
        ends = emitter.held[op.inputs[2].id].local
        if question.taken:
            return emitter.experts.own_ends(ends, axis, op.site)
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
        return Layout(dims, self._ordered(partial))

    def _ordered(self, partial: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        axes = (axis.name for axis in self.spreader.axes)
        return tuple((axis, partial[axis]) for axis in axes if axis in partial)

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
        fills = filled(op, op.outputs[0]) is not None
        for i, (value, layout, local) in enumerate(zip(op.outputs, layouts, outputs, strict=True)):
            weighed = self._weighed(question.formula, choice, i, local, op.site)
            emitter.define(
                value,
                layout,
                weighed,
                moved_by=op if moves else None,
                filled_by=op if fills else None,
            )
            reason = "; ".join((op.name, *choice.reasons))
            self.spreader.note(self.noted, value, local, layout, reason)
            self._in_pieces(value, op.site)

    def _in_pieces(self, value: Value, site: Site) -> None:
        """What will be added to a running sum goes into pieces at once, where chips keep only
        pieces of the weight: they have no memory for whole gradients."""
        if (goal := self.terms.get(value.id)) is not None:
            now = self.emitter.held[value.id].layout
            target = scattered(now, goal, self.emitter.scatters_first)
            self.emitter.get(value, target, site)

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
            if (self.block.name, value.id) in self.routing.counts | self.routing.sorted_rows:
                continue
            if self.spreader.is_part and self._is_added_to(op, value):
                continue
            if value.id in emitter.held and (now := emitter.held[value.id].layout).partial:
                emitter.get(value, self.wanted.get(value.id, Layout(now.dims)), op.site)
        inputs = tuple(
            None if isinstance(v.type, HostType) else emitter.held[v.id].layout for v in op.inputs
        )
        spread = self.spreader.specialise(op, inputs, self.wanted, self.terms)
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
                self._in_pieces(value, op.site)

    def _is_added_to(self, op: Op, value: Value) -> bool:
        """Whether the called block does no more with a value than to add to it, as a microbatch
        does to the gradients of those before: one of sums of parts is made at the end."""
        callee = self.spreader.program.block(op.block)
        pairs = zip(callee.inputs, op.inputs, strict=True)
        formals = {formal.id for formal, actual in pairs if actual.id == value.id}
        reads = [each for each in callee.ops if any(v.id in formals for v in each.inputs)]
        added = all(each.name == "aten.add.Tensor" and len(each.inputs) > 1 for each in reads)
        return added and formals.isdisjoint(v.id for v in callee.outputs)

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
                layout = as_handed_out(layout, self.emitter.time)
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
