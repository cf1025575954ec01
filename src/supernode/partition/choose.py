"""Which factor of an op each mesh axis splits: the assigned one, else what moves fewest bytes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from supernode.ir import HostType, Op, Value, is_zeros
from supernode.ops import Formula, Row
from supernode.ops.formula import SUM
from supernode.partition.cuts import (
    Split,
    cuts_of,
    cuts_stretches,
    factor_of,
    split_of,
    with_stretches,
)
from supernode.partition.emit import Emitter
from supernode.partition.experts import experts_cut, taken_along
from supernode.partition.halves import other_half
from supernode.plan import (
    Layout,
    by_expert,
    by_token,
    cut,
    cut_axis,
    cut_groups,
    cut_within,
    fits,
    has_stretches,
    is_contiguous,
)

Found = tuple[str, str]
"""A factor and how an axis cuts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What every mesh axis does in one op.

    `split` maps factors to axes, outermost first. `passing` maps axes to the kind of partial
    result that goes in and comes out, `joining` the axes along which operands that are none become
    parts of such a sum. `experts` is the axis along which the op takes rows where
    their experts are. `reasons` says why, one line an axis.
    """

    split: Split
    passing: dict[str, str]
    joining: dict[int, tuple[str, ...]]
    experts: str | None
    reasons: tuple[str, ...]


class NeedsExpansion(Exception):
    """A factor that should be split is whole in this op's row, and the row can be expanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One op, with what is known of its operands when it is reached."""

    op: Op
    row: Row
    formula: Formula
    preferences: Mapping[str, Mapping[str, tuple[int, str]]]  # axis -> factor -> rank, cut
    wanted: Mapping[int, Layout]
    emitter: Emitter
    pinned: Mapping[int, int]  # operand -> the dim whose cuts the op must take as they are
    rows: frozenset[int]  # pinned operands that may be sent to the chips of their experts
    experts: str | None  # the axis that splits experts
    taken: bool  # whether its chips have the same rows, of which each takes its experts'
    keyed: bool  # whether it looks up something of each expert for its rows
    counts: bool  # whether it carries partial sums on that stay so
    alike: frozenset[str]  # the axes along which all chips do the same

    @property
    def fixed(self) -> frozenset[str]:
        """The factors that split as a pinned operand is cut, and no other way."""
        dims = [self.formula.inputs[i][dim] for i, dim in self.pinned.items()]
        return frozenset(factors[0] for factors in dims if factors)

    def is_zero(self, position: int) -> bool:
        """Whether an operand is zeros, of which each chip's are a part of the sum, too."""
        made = self.emitter.held[self.op.inputs[position].id].filled_by
        return made is not None and is_zeros(made)

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
    experts = question.experts if among_experts(question) else None
    split, reasons = _pinned(question, experts)
    passing: dict[str, str] = {}
    joining: dict[int, tuple[str, ...]] = {}
    if question.counts:
        for _, _, layout in question.operands():
            passing |= dict(layout.partial)
    taken = {cut_axis(each) for cuts in split.values() for each in cuts} | set(passing)
    for axis, size in question.emitter.mesh.axes:
        if axis in taken or axis in question.alike:
            continue
        found = _assigned(question, axis, split, first=True)
        why = "assigned"
        if found is None and (found := _summed_by_other_half(question, axis, split)):
            why = f"{other_half(axis)} sums it"
        if found is None and (passes := _passes(question, axis)):
            kind, others = passes
            passing[axis] = kind
            joining |= {each: (*joining.get(each, ()), axis) for each in others}
            reasons.append(f"{axis} holds partial results ({kind}), which pass through")
        elif found is None:
            found = _assigned(question, axis, split, first=False)
        if found is not None:
            reasons.append(f"{axis} splits {found[0]}: {why}")
        elif axis not in passing:
            found = _cheapest(question, axis, size, split)
            if found is not None:
                reasons.append(f"{axis} splits {found[0]}: its operands lie so")
        if found is not None:
            split = _with(split, found)
    ordered = {factor: _order(question, factor, cuts) for factor, cuts in split.items()}
    ordered = with_stretches(question.formula, ordered)
    return Choice(
        split=ordered,
        passing=passing,
        joining=joining,
        experts=experts,
        reasons=tuple(reasons),
    )


def _pinned(question: Question, experts: str | None) -> tuple[Split, list[str]]:
    """Rows that each chip has sorted for itself stay where they are, or are with their experts."""
    for position, value, layout in question.operands():
        dim = question.pinned.get(position)
        here = () if dim is None else layout.dims[dim]
        if dim is None or not (here or (experts and question.taken)):
            continue
        (factor,) = question.fixed
        if experts and question.taken:
            kept = tuple(by_token(each) for each in here if cut_axis(each) != experts)
            rows = value.tensor.shape[dim]
            cuts = (*kept, by_expert(experts_cut(experts, rows, question.emitter.mesh)))
        else:
            cuts = tuple(
                by_expert(each) if cut_axis(each) == experts else by_token(each) for each in here
            )
        reasons = [f"{cut_axis(each)} splits {factor}: sorted so" for each in cuts]
        split: Split = {factor: cuts}
        if experts and question.formula.partial:
            cut_by = experts_cut(experts, question.formula.sizes["e"], question.emitter.mesh)
            split["e"] = (cut_by,)
            reasons.append(f"{experts} splits e: rows are sent to their experts")
        return split, reasons
    return {}, []


def among_experts(question: Question) -> bool:
    """Whether the op takes its rows where their experts are: products of groups must, and what
    follows them does, until it meets rows that lie where their tokens are."""
    where = [
        layout.dims[question.pinned[p]]
        for p, _, layout in question.operands()
        if p in question.pinned
    ]
    axis, formula = question.experts, question.formula
    cuts = [each for dim in where for each in dim if cut_axis(each) == axis]
    here = cuts or (question.taken and where)
    if axis is None or not here or not question.rows.issuperset(question.pinned):
        return False
    if question.keyed:
        return question.row.ragged
    if formula.partial:
        return formula.sizes["e"] >= question.emitter.mesh.axis_size(axis)
    kinds = {formula.reduced.get(factor, SUM) for factor in question.fixed}
    together = all(each == by_expert(each) for each in cuts)
    if question.taken:
        together = len(cuts) == len(where)
    return together and question.row.ragged and kinds <= {SUM, "max", "min"}


def _assigned(question: Question, axis: str, split: Split, *, first: bool) -> Found | None:
    """The assigned factor of the first preference, or the best of the others."""
    preferences = question.preferences.get(axis, {})
    for factor in sorted(preferences, key=lambda factor: (preferences[factor][0], factor)):
        preference, how = preferences[factor]
        if (preference == 0) != first:
            continue
        alone = not first and _splits_alone(axis, factor, split)
        if not alone and _can_split(question, (factor, how), split):
            return factor, how
        if factor in question.formula.whole and question.row.expand and first:
            raise NeedsExpansion
    return None


def _splits_alone(axis: str, factor: str, split: Split) -> bool:
    """Whether it is the half of an axis of which the other half does not split the factor: what
    lies over both would be moved by one of them here and by both elsewhere."""
    outer = other_half(axis)
    return outer is not None and outer not in map(cut_axis, split.get(factor, ()))


def _summed_by_other_half(question: Question, axis: str, split: Split) -> Found | None:
    """A factor of which the other half of an axis makes partial results: this one makes parts of
    them, and one reduction over both is left."""
    outer, formula = other_half(axis), question.formula
    for factor, cuts in split.items():
        how = next((each for each in cuts if cut_axis(each) == outer), None)
        if how is None or None in map(partial(formula.kind, factor), range(len(formula.outputs))):
            continue
        found = factor, cut(axis, cut_within(how))
        if _can_split(question, found, split):
            return found
    return None


def _can_split(question: Question, found: Found, split: Split) -> bool:
    (factor, how), formula = found, question.formula
    if factor in formula.whole or factor in question.fixed or factor in formula.inside:
        return False
    cuts = (*split.get(factor, ()), how)
    if not fits(cuts, formula.sizes[factor], question.emitter.mesh):
        return False
    if not is_contiguous(how) and factor in question.row.placed:
        return False
    return cuts_stretches(formula, factor, how) and _stands_alone(question, found, split)


def _stands_alone(question: Question, found: Found, split: Split) -> bool:
    """Whether nothing else cuts the dims in which stretches are cut one by one."""
    formula, then = question.formula, _with(split, found)
    if not any(map(has_stretches, then.values())):
        return True
    for dims in formula.inputs + formula.outputs:
        for dim in dims:
            cuts = cuts_of(dim, then, formula.sizes) if found[0] in dim and len(dim) > 1 else ()
            if has_stretches(cuts) and not fits(
                cuts, math.prod(formula.sizes[each] for each in dim), question.emitter.mesh
            ):
                return False
    return True


def _with(split: Split, found: Found) -> Split:
    factor, how = found
    return {**split, factor: (*split.get(factor, ()), how)}


def _passes(question: Question, axis: str) -> tuple[str, tuple[int, ...]] | None:
    """The kind of partial results along `axis` that the op lets through, and the operands that
    become parts of the sum for that, or None."""
    kinds = {p: k for p, _, layout in question.operands() if (k := layout.kind_of(axis))}
    if not kinds or len(set(kinds.values())) > 1:
        return None
    kind = next(iter(kinds.values()))
    if _grows(question, kinds):
        return None
    positions = {p for p, _, _ in question.operands()}
    everything = set(kinds) == positions
    if everything and (question.row.moves or kind in question.row.passes(question.op)):
        return kind, ()
    if kind not in ("sum", "mean"):
        return None
    for group in question.row.linear(question.op):
        # Only while it is carried along, also to places that integers name: before real work the
        # parts are added up first. Parts of rows wait for those of their token, which are fewer.
        others = [v.tensor for p, v, _ in question.operands() if p not in group]
        carried = all(t.numel == 1 or "int" in t.dtype for t in others)
        rows = question.rows.issuperset(kinds) and not question.formula.partial
        rest = [p for p in group if p not in kinds and not question.is_zero(p)]
        joins = rows and kind == SUM and axis not in question.emitter.time
        if set(kinds) <= set(group) and (carried or rows) and (joins or not rest):
            return kind, tuple(rest)
    return None


def _grows(question: Question, kinds: Mapping[int, str]) -> bool:
    """Whether more bytes would have to be added up behind the op than before it."""
    before = {value.id: value.type.size_bytes for p, value, _ in question.operands() if p in kinds}
    return sum(out.type.size_bytes for out in question.op.outputs) > sum(before.values())


def _cheapest(question: Question, axis: str, size: int, split: Split) -> Found | None:
    """The factor whose split moves fewest bytes, among those some operand suggests."""
    candidates: dict[Found | None, None] = {None: None}
    formula = question.formula
    for position, value, layout in question.operands():
        where = _goal(question, value, layout, axis).where(axis)
        if where is not None:
            dim, how = where
            found = factor_of(formula.inputs[position][dim], how, formula.sizes)
            if found is None:
                continue
            if found[0] in formula.whole and question.row.expand:
                raise NeedsExpansion
            if _can_split(question, found, split) and not _splits_alone(axis, found[0], split):
                candidates[found] = None
    # Equal bytes: a split leaves less work on each chip.
    costs = {f: (_bytes_moved(question, axis, size, f), f is None, f or ()) for f in candidates}
    return min(costs, key=lambda found: costs[found])


def _goal(question: Question, value: Value, layout: Layout, axis: str) -> Layout:
    """Where the operand should end up: a gradient, in parts like the state it will meet."""
    if layout.kind_of(axis) is None:
        return layout
    return question.wanted.get(value.id, layout)


def _bytes_moved(question: Question, axis: str, size: int, found: Found | None) -> float:
    total = 0.0
    for position, value, layout in question.operands():
        target = _cut_by(question.formula, position, found)
        held = layout.where(axis)
        versions = question.emitter.held[value.id].versions
        if any(v.where(axis) == target and not v.kind_of(axis) for v in versions):
            continue
        nbytes = question.emitter.largest_bytes(value, layout)
        if layout.kind_of(axis):
            wanted = question.wanted.get(value.id)
            total += nbytes * (size - 1) / size * (1 if target is not None else 2)
            if wanted is not None and wanted.where(axis) != target:
                # Not impossible, but the whole plan asks for the other.
                total += nbytes * size
        elif held is not None and held != target:
            total += nbytes * (size - 1) * (1 if target is None else 1 / size)
    return total


def _cut_by(formula: Formula, position: int, found: Found | None) -> tuple[int, str] | None:
    """The dim of an operand that a split of a factor cuts, and how."""
    if found is None:
        return None
    split = with_stretches(formula, {found[0]: (found[1],)})
    for i, dim in enumerate(formula.inputs[position]):
        if cuts := cuts_of(dim, split, formula.sizes):
            return i, cuts[0]
    return None


def _order(question: Question, factor: str, cuts: tuple[str, ...]) -> tuple[str, ...]:
    """Cuts of the whole before those of groups in it, in mesh order; or as an operand is cut. What
    is taken of the rows a chip has is cut last."""
    formula = question.formula
    for position, value, layout in question.operands():
        held = split_of(
            formula.inputs[position],
            _goal(question, value, layout, cut_axis(cuts[0])),
            formula.sizes,
        )
        if held is not None and set(held.get(factor, ())) == set(cuts):
            return held[factor]
    if has_stretches(cuts):
        return cuts
    ordered = sorted(cuts, key=cut_groups)
    if question.taken:
        ordered.sort(key=lambda each: taken_along((each,)) is not None)
    return tuple(ordered)
