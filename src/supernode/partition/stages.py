"""The program of each stage of a pipeline: its ops in its schedule's order, and what is sent.

What a stage needs and another makes is sent as soon as it is there and awaited where it is used
first. What depends on no weight (masks, positions, the step's arguments) each stage makes for
itself.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from supernode.errors import LayoutError
from supernode.ir import (
    RECEIVE,
    SEND,
    Block,
    DType,
    HostType,
    Op,
    Program,
    Site,
    TensorType,
    Type,
    Value,
    called,
)
from supernode.ops import is_view
from supernode.partition.chunks import EVERYWHERE, Chunks, backward_level
from supernode.partition.schedules import Kind, Schedule, Slot

AXIS = "pp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """`programs[s]` is what the chips of stage `s` run; `homes[i]` the stage input `i` lives on.

    `results[i]` is the stage that has output `i`. `EVERYWHERE` stands for all.
    """

    programs: tuple[Program, ...]
    homes: list[int]
    results: list[int]


def staged(chunks: Chunks, stages: int, order: Schedule) -> Staged:
    """Cuts what is in chunks in `stages` programs.

    Raises:
        LayoutError: stages would wait for each other.
    """
    cutter = _Stages(chunks, stages)
    programs = tuple(cutter.program(stage, order) for stage in range(stages))
    _check_progress(programs)
    homes = [cutter.stage(chunk) for chunk in chunks.homes]
    return Staged(programs=programs, homes=homes, results=cutter.results())


class _Stages:
    def __init__(self, chunks: Chunks, stages: int) -> None:
        local, tags = chunks.local, chunks.tags
        self.local, self.tags, self.stages = local, tags, stages
        self.ops = local.main.ops
        self.of = [self.stage(chunk) for chunk in chunks.of]
        self.chunk_of, self.weights = chunks.of, chunks.weights
        self.virtual = max(1, (max(chunks.of, default=0) + 1) // stages)
        self.parts = 1 + max((tag.part or 0 for tag in tags), default=0)
        self.made = {v.id: at for at, op in enumerate(self.ops) for v in op.outputs}
        self.home = {
            value.id: self.stage(chunk)
            for value, chunk in zip(local.main.inputs, chunks.homes, strict=True)
        }
        self.level = backward_level(local, tags)
        self.wanted: dict[int, set[int]] = defaultdict(set)
        self._find_wanted()
        self.first = self._first()

    def _first(self) -> set[int]:
        """The ops of the level that are the same for all parts and wait for none of them.

        With them those of backward that work on weights alone, for another stage: it may want them
        before it can send what this one's backward begins with.
        """
        found: set[int] = set()
        sending = self._sending()
        for at, (op, tag) in enumerate(zip(self.ops, self.tags, strict=True)):
            before = [self.made[value.id] for value in op.inputs if value.id in self.made]
            free = all(b in found or self.tags[b].level < self.level for b in before)
            sent = op.site.phase == "backward" and at in sending
            if tag.level <= self.level and (tag.part is None or sent) and free:
                found.add(at)
        return found

    def _sending(self) -> set[int]:
        """The ops that make what another stage wants, or what that is made of."""
        wanted = set(self.wanted)
        found: set[int] = set()
        for at in range(len(self.ops) - 1, -1, -1):
            if any(value.id in wanted for value in self.ops[at].outputs):
                found.add(at)
                wanted |= {value.id for value in self.ops[at].inputs}
        return found

    def stage(self, chunk: int) -> int:
        """The stage of a chunk."""
        return chunk if chunk == EVERYWHERE else chunk % self.stages

    def source(self, value: Value) -> int:
        """The stage that makes a value."""
        if value.id in self.made:
            return self.of[self.made[value.id]]
        return self.home[value.id]

    def results(self) -> list[int]:
        """The stage of each output: state where it lives, a single number everywhere."""
        return [self._result(value, update) for value, update in self._pairs()]

    def _pairs(self) -> Iterator[tuple[Value, int | None]]:
        return zip(self.local.main.outputs, self.local.updates, strict=True)

    def _result(self, value: Value, update: int | None) -> int:
        if update is not None:
            return self.home[self.local.main.inputs[update].id]
        return self.source(value) if _is_large(value.type) else EVERYWHERE

    def _find_wanted(self) -> None:
        """Which stages want a value that another one makes."""
        for stage in range(self.stages):
            seen: set[int] = set()
            open_ = [
                value
                for at, op in enumerate(self.ops)
                if self.of[at] == stage
                for value in op.inputs
            ]
            open_ += [value for value, _ in self._outputs(stage)]
            while open_:
                value = open_.pop()
                if value.id in seen:
                    continue
                seen.add(value.id)
                source = self.source(value)
                if self.made_here(value, stage):
                    open_ += self.ops[self.made[value.id]].inputs
                elif source not in (EVERYWHERE, stage):
                    self.wanted[value.id].add(stage)

    def made_here(self, value: Value, stage: int) -> bool:
        """Whether a stage makes a value for itself; of a weight that comes from elsewhere, its
        views are made anew, so that it comes once."""
        at = self.made.get(value.id)
        if at is None:
            return False
        op = self.ops[at]
        again = is_view(op) and self.tags[at].part is None and len(op.inputs) == 1
        again = again and op.inputs[0].type.size_bytes == value.type.size_bytes
        return self.of[at] in (EVERYWHERE, stage) or again

    def _outputs(self, stage: int) -> Iterator[tuple[Value, int]]:
        """The outputs that a stage has, with their places."""
        for i, (value, update) in enumerate(self._pairs()):
            if self._result(value, update) in (EVERYWHERE, stage):
                yield value, i

    def program(self, stage: int, order: Schedule) -> Program:
        """What the chips of one stage run."""
        writer = _Writer(self, stage)
        for value in self.local.main.inputs:
            if self.home[value.id] == stage:
                writer.send(value, _NOWHERE)
        for at, slot in self._order(stage, order):
            writer.task = str(slot or "")
            writer.write(at)
        writer.task = ""
        given = {i: value for value, i in self._outputs(stage)}
        inputs = tuple(
            value if self.home[value.id] in (EVERYWHERE, stage) else writer.absent(value)
            for value in self.local.main.inputs
        )
        outputs: list[Value] = []
        for i, (value, update) in enumerate(self._pairs()):
            if i in given:
                writer.need(value)
                outputs.append(value)
            elif update is not None:
                outputs.append(inputs[update])
            else:
                outputs.append(writer.nothing(value))
        main = Block(name="main", inputs=inputs, ops=tuple(writer.ops), outputs=tuple(outputs))
        return replace(self.local, main=main, blocks=called(self.local.blocks, writer.ops))

    def _kind(self, at: int) -> Kind:
        if at in self.weights:
            return "weights"
        return "forward" if self.ops[at].site.phase == "forward" else "backward"

    def _order(self, stage: int, order: Schedule) -> Iterator[tuple[int, Slot | None]]:
        """The ops of a stage, each with the task it belongs to."""
        own = [at for at in range(len(self.ops)) if self.of[at] == stage]
        inside = [at for at in own if self.tags[at].level == self.level]
        tasks: dict[Slot, list[int]] = defaultdict(list)
        for at in inside:
            part = self.tags[at].part
            if part is not None:
                tasks[Slot(self._kind(at), self.chunk_of[at], part)].append(at)
        yield from ((at, None) for at in own if self.tags[at].level < self.level)
        yield from ((at, None) for at in inside if at in self.first)
        for slot in order(stage, self.stages, self.virtual, self.parts):
            yield from ((at, slot) for at in tasks.pop(slot, ()))
        assert not tasks, f"the schedule leaves out {[*map(str, tasks)]}"
        yield from ((at, None) for at in inside if self.tags[at].part is None)
        yield from ((at, None) for at in own if self.tags[at].level > self.level)


_NOWHERE = Site()


class _Writer:
    """Writes the ops of one stage."""

    def __init__(self, stages: _Stages, stage: int) -> None:
        self.stages, self.stage = stages, stage
        self.task = ""
        self.ops: list[Op] = []
        self.written: set[int] = set()
        self.there = {
            value.id
            for value in stages.local.main.inputs
            if stages.home[value.id] in (EVERYWHERE, stage)
        }
        self.next_id = 1 + max((*stages.made, *stages.home), default=0)

    def write(self, at: int) -> None:
        """An op, after what it reads."""
        if at in self.written:
            return
        self.written.add(at)
        op = self.stages.ops[at]
        for value in op.inputs:
            self.need(value)
        self._add(op)
        self.there |= {value.id for value in op.outputs}
        if self.stages.of[at] == self.stage:
            for value in op.outputs:
                self.send(value, op.site)

    def need(self, value: Value) -> None:
        """Sees to it that a value is there."""
        if value.id in self.there:
            return
        if self.stages.made_here(value, self.stage):
            self.write(self.stages.made[value.id])
            return
        args = ((), AXIS, self.stages.source(value), value.id)
        self._add(Op(name=RECEIVE, args=args, outputs=(value,), site=self._site(value)))
        self.there.add(value.id)

    def send(self, value: Value, site: Site) -> None:
        """Sends a value to the stages that want it."""
        for stage in sorted(self.stages.wanted.get(value.id, ())):
            args = ((value,), AXIS, stage, value.id)
            self._add(Op(name=SEND, args=args, outputs=(), site=site))

    def _add(self, op: Op) -> None:
        if self.task:
            op = replace(op, site=replace(op.site, task=self.task))
        self.ops.append(op)

    def absent(self, value: Value) -> Value:
        """What stands for an input that lives on another stage; the value itself may be sent."""
        self.next_id += 1
        return Value(self.next_id - 1, empty(value.type))

    def nothing(self, value: Value) -> Value:
        """An empty value in the place of an output that another stage has."""
        out = self.absent(value)
        args = (out.tensor.shape, 0)
        kwargs = (("dtype", DType(out.tensor.dtype)),)
        op = Op(name="aten.full", args=args, kwargs=kwargs, outputs=(out,), site=_NOWHERE)
        self.ops.append(op)
        return out

    def _site(self, value: Value) -> Site:
        at = self.stages.made.get(value.id)
        return _NOWHERE if at is None else self.stages.ops[at].site


def empty(type_: Type) -> Type:
    """The type of a value that lives elsewhere; a single number is kept everywhere."""
    if isinstance(type_, HostType) or not type_.shape:
        return type_
    return TensorType(type_.dtype, (0, *type_.shape[1:]))


def _is_large(type_: Type) -> bool:
    return not isinstance(type_, HostType) and bool(type_.shape)


def _check_progress(programs: tuple[Program, ...]) -> None:
    """That no stage waits for another one for ever, each doing its ops in order."""
    places = [0] * len(programs)
    sent: set[tuple[int, int]] = set()
    moved = True
    while moved:
        moved = False
        for stage, program in enumerate(programs):
            ops = program.main.ops
            while places[stage] < len(ops):
                op = ops[places[stage]]
                if op.name == SEND:
                    sent.add((int(str(op.args[2])), int(str(op.args[3]))))
                elif op.name == RECEIVE and (stage, int(str(op.args[3]))) not in sent:
                    break
                places[stage] += 1
                moved = True
    if any(place < len(program.main.ops) for place, program in zip(places, programs, strict=True)):
        raise LayoutError(
            "stages would wait for each other",
            fix="choose schedule=gpipe, or say with cut= where else stages begin",
        )
