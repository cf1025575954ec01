"""Which ops differ from part to part of an axis of time, and which need all parts to be done.

All parts of one level run before what is of the next, and a reduction over the axis ends a level.
An op has the last level that it can have. So a train step has three: how many tokens count in the
loss; forward and backward, whose gradients are divided by that; the optimizer. Batch statistics
need all parts, so each of them adds a level.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from supernode.ir import CALL, Block, NewValues, Op, Program, Value, copied, renamed
from supernode.partition.draws import timed_numbers

REDUCE = "fabric.all_reduce"
GATHER = "fabric.all_gather"
SCATTER = "fabric.reduce_scatter"
EXCHANGE = "fabric.all_to_all"

Sized = Mapping[str, Collection[int]]
"""By block, the ids of values of which parts have unequal pieces."""


@dataclass(frozen=True, slots=True)
class State:
    """Of a value: how many reductions over the axis lie before it, whether it differs by part."""

    level: int = 0
    differs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An op of main that runs once, or once a part, at a level; `ends` says what its outputs are.

    `head` of a call whose block ends in reductions over the axis tells which of the block's ops
    run for every part; the others run with the last part.
    """

    op: Op
    level: int
    differs: bool
    ends: tuple[State, ...]
    head: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What a block does, given which of its inputs differ."""

    differs: bool
    ends: tuple[State, ...]
    head: frozenset[int] | None


class Levels:
    """The ops of main with their levels.

    A call of a block that goes on with this part after a reduction is replaced by the block's ops.
    `outputs` are those of main, `fresh` gives new values of it. What is `sized` differs by part,
    were it made of nothing.
    """

    def __init__(self, program: Program, axis: str, sized: Sized) -> None:
        main = program.main
        self.steps: list[Step] = []
        self._axis = axis
        self._sized = sized
        self.numbers = timed_numbers(program)
        self._blocks = {block.name: block for block in program.blocks}
        self._forms: dict[tuple[str, tuple[bool, ...]], _Form | None] = {}
        self._states = {value.id: State() for value in main.inputs}
        self._same: dict[int, Value] = {}
        self.fresh = NewValues.of(main)
        for op in main.ops:
            self._add(op, self._is_sized(main, op))
        self.outputs = tuple(self._same.get(value.id, value) for value in main.outputs)
        self.steps = _as_late_as_possible(self.steps, {value.id for value in self.outputs})

    @property
    def last(self) -> int:
        """The level of the last ops."""
        return max((step.level for step in self.steps), default=0)

    def _is_sized(self, block: Block, op: Op) -> bool:
        return any(value.id in self._sized.get(block.name, ()) for value in op.outputs)

    def _add(self, op: Op, sized: bool) -> None:
        op = renamed(op, {value.id: self._same.get(value.id, value) for value in op.inputs})
        before = [self._states[value.id] for value in op.inputs]
        if op.name != CALL:
            if op.outputs[0].id in self.numbers:
                before = [State(0, True)]
            level, differs, ends = _through(op, before, self._axis, sized)
            self._record(Step(op=op, level=level, differs=differs, ends=ends))
            return
        form = self._form(op, before)
        if form is None:
            self._inline(op)
            return
        level = max((state.level for state in before), default=0)
        ends = tuple(State(level + end.level, end.differs) for end in form.ends)
        self._record(Step(op=op, level=level, differs=form.differs, ends=ends, head=form.head))

    def _record(self, step: Step) -> None:
        self.steps.append(step)
        self._states |= zip((value.id for value in step.op.outputs), step.ends, strict=True)

    def _form(self, op: Op, before: Sequence[State]) -> _Form | None:
        key = (op.block, tuple(state.differs for state in before))
        if key not in self._forms:
            self._forms[key] = self._form_of(self._blocks[op.block], key[1])
        return self._forms[key]

    def _form_of(self, block: Block, inputs: tuple[bool, ...]) -> _Form | None:
        """None where a part goes on after a reduction."""
        states = {v.id: State(0, differs) for v, differs in zip(block.inputs, inputs, strict=True)}
        axis, head = self._axis, list[int]()
        any_differs = False
        for at, op in enumerate(block.ops):
            level, differs, ends = _through(
                op, [states[value.id] for value in op.inputs], axis, self._is_sized(block, op)
            )
            any_differs |= differs
            if (level and differs) or (over(op, axis) and op.name != REDUCE):
                return None
            if not level and not over(op, axis):
                head.append(at)
            states |= zip((value.id for value in op.outputs), ends, strict=True)
        return _Form(
            differs=any_differs,
            ends=tuple(states[value.id] for value in block.outputs),
            head=None if len(head) == len(block.ops) else frozenset(head),
        )

    def _inline(self, op: Op) -> None:
        block = self._blocks[op.block]
        ops, outputs = copied(block, op.inputs, self.fresh)
        for inner, known in zip(ops, block.ops, strict=True):
            self._add(inner, self._is_sized(block, known))
        self._same |= zip((value.id for value in op.outputs), outputs, strict=True)


def _as_late_as_possible(steps: list[Step], kept: set[int]) -> list[Step]:
    """The steps at their last levels: so that little waits in memory for all parts of a level.

    A step that nothing reads and whose outputs are not `kept` has none, and is left out.
    """
    last = max((end.level for step in steps for end in step.ends), default=0)
    until = dict.fromkeys(kept, last)
    late: list[Step] = []
    for step in reversed(steps):
        if not any(value.id in until for value in step.op.outputs):
            continue
        level = last
        for value, end in zip(step.op.outputs, step.ends, strict=True):
            level = min(level, until.get(value.id, last) - (end.level - step.level))
        for value in step.op.inputs:
            until[value.id] = min(level, until.get(value.id, last))
        late.append(replace(step, level=level))
    return late[::-1]


def over(op: Op, axis: str) -> bool:
    """Whether `op` is a collective over `axis`."""
    return op.name.startswith("fabric.") and op.args[1] == axis


def picks(op: Op, axis: str) -> bool:
    """Whether `op` takes this part's piece of what all parts share."""
    return op.name == "local.shard" and op.args[2] == axis


def _through(
    op: Op, before: Sequence[State], axis: str, sized: bool
) -> tuple[int, bool, tuple[State, ...]]:
    """The level of an op, whether it differs by part, and the states of its outputs."""
    level = max((state.level for state in before), default=0)
    differs = sized or picks(op, axis) or any(state.differs for state in before)
    end = State(level, differs)
    if over(op, axis):
        differs, end = True, State(level + 1, op.name in (SCATTER, EXCHANGE))
    return level, differs, (end,) * len(op.outputs)


def unequal(chips: Sequence[Sequence[Program]]) -> Sized:
    """The values that are not of one size in all parts of some chip; the programs, of the parts of
    each chip, have the same ops."""
    found: dict[str, set[int]] = {}
    for parts in chips:
        for blocks in zip(*(part.all_blocks() for part in parts), strict=True):
            for ops in zip(*(block.ops for block in blocks), strict=True):
                for values in zip(*(op.outputs for op in ops), strict=True):
                    if len({value.type for value in values}) > 1:
                        for block in blocks:
                            found.setdefault(block.name, set()).add(values[0].id)
    return found
