"""An axis of time, unrolled: its parts run one after another on each chip.

A program is first spread over an axis of time as if its parts were chips side by side. Here each op
that differs from part to part is written once a part, and a reduction over the axis becomes a
running sum: the gradients of microbatches are added up, and what follows (reductions over chips,
the optimizer) comes once, with or behind the last part.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from supernode.ir import (
    CALL,
    Arg,
    Block,
    Op,
    Program,
    TensorType,
    Value,
    called,
    free_fills,
    renamed,
)
from supernode.partition.draws import of_part, timed
from supernode.partition.forms import Form, early, form_name, form_of, is_scattered
from supernode.partition.levels import (
    EXCHANGE,
    GATHER,
    REDUCE,
    SCATTER,
    Levels,
    Sized,
    Step,
    over,
    picks,
)
from supernode.partition.parted import two_calls
from supernode.partition.running import combined, picked, piece, put_off, rounded


class Tag(NamedTuple):
    """Where an op of main comes from: its level, its place in what was unrolled, and its part.

    `part` is None for what is the same for all parts.
    """

    level: int
    step: int
    part: int | None


def unroll(parts: Sequence[Program], axis: str, sized: Sized) -> tuple[Program, list[Tag]]:
    """The `parts` of `axis` one after another, and a tag for each op of main.

    They are one program, but for the sizes of what differs by part: `sized` are such values.
    Results are unchanged.
    """
    made = {id(part): timed(free_fills(part), axis, len(parts)) for part in parts}
    unroller = _Unroller([made[id(part)] for part in parts], axis, sized)
    main = unroller.main()
    local = made[id(parts[0])]
    blocks = {block.name: block for part in made.values() for block in part.blocks}
    for form in unroller.forms.values():
        halves = () if form.halves is None else form.halves.blocks
        blocks |= {each.name: each for each in (form.block, *halves)}
    return replace(local, main=main, blocks=called(blocks.values(), main.ops)), unroller.tags


def untimed(local: Program) -> list[Tag]:
    """The tags of main where nothing was unrolled: the whole batch is one part."""
    return [
        Tag(0, at, None if op.site.phase == "optimizer" else 0)
        for at, op in enumerate(local.main.ops)
    ]


class _Unroller:
    """Writes the new main, and the forms of blocks it calls."""

    def __init__(self, programs: Sequence[Program], axis: str, sized: Sized) -> None:
        self.local, self.axis, self.parts = programs[0], axis, len(programs)
        alike = {id(program): program for program in programs}
        known = {key: Levels(program, axis, sized) for key, program in alike.items()}
        self.levels = known[id(self.local)]
        self.steps = [known[id(program)].steps for program in programs]
        """Those of each part, with its sizes."""
        self.blocks = {block.name: block for program in programs for block in program.blocks}
        self.forms: dict[str, Form] = {}
        self.late: set[int] = set()
        """The places of ops that add up what was scattered over chips."""
        self.ops: list[Op] = []
        self.made: dict[int, Op] = {}
        self.tags: list[Tag] = []
        self.once: dict[int, Value] = {value.id: value for value in self.local.main.inputs}
        self.each: list[dict[int, Value]] = [{} for _ in programs]
        self.running: dict[int, list[Value]] = defaultdict(list)

    def main(self) -> Block:
        """The main that runs part after part."""
        for level in range(self.levels.last + 1):
            steps = [(at, step) for at, step in enumerate(self.levels.steps) if step.level == level]
            inside = _feeding([step for _, step in steps])
            for part in range(self.parts):
                for (at, step), feeds in zip(steps, inside, strict=True):
                    if step.differs:
                        self._part(self.steps[part][at], part)
                        self._tag(level, at, part)
                    elif feeds and part == 0:
                        self._whole(step)
                        self._tag(level, at, None)
            for (at, step), feeds in zip(steps, inside, strict=True):
                if not step.differs and not feeds:
                    self._whole(step)
                    self._tag(level, at, None)
        outputs = tuple(self.once[value.id] for value in self.levels.outputs)
        order = put_off(self.ops, self.late)
        self.tags = [self.tags[at] for at in order]
        return replace(self.local.main, ops=tuple(self.ops[at] for at in order), outputs=outputs)

    def _tag(self, level: int, at: int, part: int | None) -> None:
        """Notes where the ops come from that were written last."""
        new = self.ops[len(self.tags) :]
        self.made |= {value.id: op for op in new for value in op.outputs}
        self.tags += [Tag(level, at, part)] * (len(self.ops) - len(self.tags))

    def _whole(self, step: Step) -> None:
        """What is the same for all parts, once."""
        outputs = self.levels.fresh.like(step.op.outputs)
        self.ops.append(replace(renamed(step.op, self.once), outputs=outputs))
        self.once |= zip((value.id for value in step.op.outputs), outputs, strict=True)

    def _part(self, step: Step, part: int) -> None:
        op = renamed(step.op, {v.id: self._value(v, part) for v in step.op.inputs})
        if over(op, self.axis):
            self._collect(op, part)
        elif op.name == CALL:
            self._call(step, op, part)
        elif picks(op, self.axis):
            (out,) = self.levels.fresh.like(op.outputs)
            self.ops.append(picked(op, part, self.parts, out))
            self.each[part][op.outputs[0].id] = out
        else:
            outputs = self.levels.fresh.like(op.outputs)
            if op.outputs[0].id in self.levels.numbers:
                op = of_part(op, part)
            self.ops.append(replace(op, outputs=outputs))
            self.each[part] |= zip((value.id for value in op.outputs), outputs, strict=True)

    def _call(self, step: Step, op: Op, part: int) -> None:
        """The form of the block for this part, with what there is so far and what there then is."""
        block = self.blocks[op.block]
        place = self.axis, step.head, part, self.parts
        name = form_name(block, *place)
        if name not in self.forms:
            made = None if name == block.name else form_of(block, *place)
            self.forms[name] = made or Form(block=block)
        form = self.forms[name].block
        key, last = op.outputs[0].id, part == self.parts - 1
        given = list(range(len(op.outputs)))
        if step.head is not None and not last:
            given = early(block, step.head)
        outputs = self.levels.fresh.like(form.outputs)
        args = (*op.args, *self.running[key])
        self._append_call(replace(op, args=args, outputs=outputs, block=name))
        self.running[key] = list(outputs[len(given) :])
        for i, value in zip(given, outputs, strict=False):
            self._define(op.outputs[i], step.ends[i].differs, value, part)

    def _append_call(self, op: Op) -> None:
        halves = self.forms[op.block].halves
        if halves is None:
            self.ops.append(op)
            return
        self.ops += two_calls(op, halves, self.levels.fresh)
        self.late.add(len(self.ops) - 1)

    def _define(self, value: Value, differs: bool, now: Value, part: int) -> None:
        if differs:
            self.each[part][value.id] = now
        else:
            self.once.setdefault(value.id, now)

    def _collect(self, op: Op, part: int) -> None:
        """One more part of a collective over the axis; with the last its results are there."""
        (source,), (out,) = op.inputs, op.outputs
        known = self.running[out.id]
        if op.name in (GATHER, EXCHANGE):
            known.append(source)
        else:
            kind = str(op.args[-1])
            ops = combined(known[0] if known else None, source, kind, op.site, self.levels.fresh)
            if is_scattered(source, self.made):
                self.late |= {len(self.ops) + i for i in range(len(ops))}
            self.ops += ops
            self.running[out.id] = [ops[-1].outputs[0] if ops else source]
        if part == self.parts - 1:
            self._complete(op, self.running.pop(out.id))

    def _complete(self, op: Op, known: list[Value]) -> None:
        (out,) = op.outputs
        if op.name == REDUCE:
            self.once[out.id] = self._rounded(known[0], out.tensor, op)
        elif op.name == GATHER:
            self.once[out.id] = self._joined(known, op.args[2], out, op)
        elif op.name == SCATTER:
            total = self._rounded(known[0], op.inputs[0].tensor, op)
            for part in range(self.parts):
                self.each[part][out.id] = self._piece(total, op.args[2], part, out.tensor, op)
        else:
            assert op.name == EXCHANGE
            for part in range(self.parts):
                mine = [self._piece(v, op.args[2], part, None, op) for v in known]
                self.each[part][out.id] = self._joined(mine, op.args[3], out, op)

    def _rounded(self, total: Value, type_: TensorType, op: Op) -> Value:
        if total.type == type_:
            return total
        out = self.levels.fresh(type_)
        self.ops.append(rounded(total, out, op.site))
        return out

    def _piece(
        self, source: Value, dims: Arg, part: int, type_: TensorType | None, op: Op
    ) -> Value:
        dim = _only(dims)
        if type_ is None:
            shape = list(source.tensor.shape)
            shape[dim] //= self.parts
            type_ = TensorType(source.tensor.dtype, tuple(shape))
        out = self.levels.fresh(type_)
        self.ops.append(piece(source, dim, part, self.parts, out, op.site))
        return out

    def _joined(self, known: list[Value], dims: Arg, out: Value, op: Op) -> Value:
        joined = self.levels.fresh(out.type)
        args: tuple[Arg, ...] = (tuple(known), _only(dims))
        self.ops.append(Op(name="aten.cat", args=args, outputs=(joined,), site=op.site))
        return joined

    def _value(self, value: Value, part: int) -> Value:
        return self.each[part].get(value.id) or self.once[value.id]


def _only(dims: Arg) -> int:
    assert isinstance(dims, tuple)
    (dim,) = dims
    assert isinstance(dim, int)
    return dim


def _feeding(steps: list[Step]) -> list[bool]:
    """Which of the steps of one level come before one of them that differs by part."""
    needed: set[int] = set()
    feeds: list[bool] = []
    for step in reversed(steps):
        found = step.differs or any(value.id in needed for value in step.op.outputs)
        if found:
            needed |= {value.id for value in step.op.inputs}
        feeds.append(found)
    return feeds[::-1]
