"""Which factor of an op each mesh axis splits: the assigned one, else what moves fewest bytes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supernode.ir import HostType, Op, Value
from supernode.ops import Formula, Row
from supernode.partition.emit import Emitter
from supernode.plan import Layout

Split = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What every mesh axis does in one op.

    `split` maps factors to axes, outermost first. `passing` maps axes to the kind of partial
    result that goes in and comes out. `reasons` says why, one line an axis.
    """

    split: Split
    passing: dict[str, str]
    reasons: tuple[str, ...]


class NeedsExpansion(Exception):
    """An assigned factor is whole in this op's row, and the row can be expanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One op, with what is known of its operands when it is reached."""

    op: Op
    row: Row
    formula: Formula
    preferences: Mapping[str, Mapping[str, int]]  # axis -> factor -> preference
    wanted: Mapping[int, Layout]
    emitter: Emitter

    def operands(self) -> Iterator[tuple[int, Value, Layout]]:
        """Tensor operands with their position and the layout they have now."""
        for position, value in enumerate(self.op.inputs):
            if not isinstance(value.type, HostType):
                yield position, value, self.emitter.held[value.id].layout


def choose(question: Question) -> Choice:
    """Decides axis by axis, in mesh order.

    Raises:
        NeedsExpansion: the op should be replaced by its expansion first.
    """
    split: Split = {}
    passing: dict[str, str] = {}
    reasons: list[str] = []
    for axis, size in question.emitter.mesh.axes:
        kind = None
        factor = _assigned(question, axis, size, split, first=True)
        if factor is None and (kind := _passes(question, axis)):
            passing[axis] = kind
            reasons.append(f"{axis} holds partial results ({kind}), which pass through")
        if factor is None and kind is None:
            factor = _assigned(question, axis, size, split, first=False)
        if factor is not None:
            reasons.append(f"{axis} splits {factor}: assigned")
        elif kind is None:
            factor = _cheapest(question, axis, size, split)
            if factor is not None:
                reasons.append(f"{axis} splits {factor}: its operands lie so")
        if factor is not None:
            split[factor] = (*split.get(factor, ()), axis)
    ordered = {factor: _order(question, factor, axes) for factor, axes in split.items()}
    return Choice(split=ordered, passing=passing, reasons=tuple(reasons))


def _assigned(question: Question, axis: str, size: int, split: Split, *, first: bool) -> str | None:
    """The assigned factor of the first preference, or the best of the others."""
    preferences = question.preferences.get(axis, {})
    formula = question.formula
    for factor in sorted(preferences, key=lambda factor: (preferences[factor], factor)):
        if (preferences[factor] == 0) != first:
            continue
        if _can_split(question, factor, size, split):
            return factor
        if factor in formula.whole and question.row.expand and preferences[factor] == 0:
            raise NeedsExpansion
    return None


def _can_split(question: Question, factor: str, size: int, split: Split) -> bool:
    formula, mesh = question.formula, question.emitter.mesh
    already = math.prod(mesh.axis_size(axis) for axis in split.get(factor, ()))
    return formula.splittable(factor) and formula.sizes[factor] % (already * size) == 0


def _passes(question: Question, axis: str) -> str | None:
    """The kind of partial results along `axis` that the op lets through, or None."""
    kinds = {p: k for p, _, layout in question.operands() if (k := layout.kind_of(axis))}
    if not kinds or len(set(kinds.values())) > 1:
        return None
    kind = next(iter(kinds.values()))
    if _grows(question, kinds):
        return None
    positions = {p for p, _, _ in question.operands()}
    everything = set(kinds) == positions
    if everything and (question.row.moves or kind in question.row.passes(question.op)):
        return kind
    if kind not in ("sum", "mean"):
        return None
    for group in question.row.linear(question.op):
        # Only while it is carried along: before real work the parts are added up first.
        others = [v for p, v, _ in question.operands() if p not in group]
        if set(kinds) == set(group) and all(v.tensor.numel == 1 for v in others):
            return kind
    return None


def _grows(question: Question, kinds: Mapping[int, str]) -> bool:
    """Whether more bytes would have to be added up behind the op than before it."""
    before = {value.id: value.type.size_bytes for p, value, _ in question.operands() if p in kinds}
    return sum(out.type.size_bytes for out in question.op.outputs) > sum(before.values())


def _cheapest(question: Question, axis: str, size: int, split: Split) -> str | None:
    """The factor whose split moves fewest bytes, among those some operand suggests."""
    candidates: dict[str | None, None] = {None: None}
    for position, value, layout in question.operands():
        goal = _goal(question, value, layout, axis)
        dim = goal.dim_of(axis)
        if dim is not None:
            factor = question.formula.factor_at(question.formula.inputs[position], dim)
            if factor is not None and _can_split(question, factor, size, split):
                candidates[factor] = None
    # Equal bytes: a split leaves less work on each chip.
    costs = {f: (_bytes_moved(question, axis, size, f), f is None, f or "") for f in candidates}
    return min(costs, key=lambda factor: costs[factor])


def _goal(question: Question, value: Value, layout: Layout, axis: str) -> Layout:
    """Where the operand should end up: a gradient, in parts like the state it will meet."""
    if layout.kind_of(axis) is None:
        return layout
    return question.wanted.get(value.id, layout)


def _bytes_moved(question: Question, axis: str, size: int, factor: str | None) -> float:
    total = 0.0
    for position, value, layout in question.operands():
        dims = question.formula.inputs[position]
        target = next((i for i, dim in enumerate(dims) if dim[:1] == (factor,)), None)
        held = layout.dim_of(axis)
        versions = question.emitter.held[value.id].versions
        if any(v.dim_of(axis) == target and not v.kind_of(axis) for v in versions):
            continue
        nbytes = versions[layout].type.size_bytes
        if layout.kind_of(axis):
            wanted = question.wanted.get(value.id)
            total += nbytes * (size - 1) / size * (1 if target is not None else 2)
            if wanted is not None and wanted.dim_of(axis) != target:
                # Not impossible, but the whole plan asks for the other.
                total += nbytes * size
        elif held is not None and held != target:
            total += nbytes * (size - 1) * (1 if target is None else 1 / size)
    return total


def _order(question: Question, factor: str, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Mesh order, unless an operand is already cut by these axes in another one."""
    for position, value, layout in question.operands():
        for dim, named in enumerate(question.formula.inputs[position]):
            layout = _goal(question, value, layout, axes[0])
            if named[:1] == (factor,) and set(layout.dims[dim]) == set(axes):
                return layout.dims[dim]
    return axes
