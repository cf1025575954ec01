"""The tasks of a chip of each stage: what waits for what, and the order on each stream.

Computing keeps the order of the program. A collective is issued where it stands, after the op
before it, and overlaps with what follows until its result is used. One that waits for nothing
computed in this step (a gather of parameters) is issued early: when the stretch of such collectives
before it stands in the program. So the weights of the next layer arrive while this one computes,
and those of two layers are held. Without `prefetch` backward gathers them where they stand, once
the layer before is done, and sends that layer's gradients behind.

What a stage sends goes on a stream of its own; what reads it on another stage waits for that.

What is fetched from another place begins after the op before it, and what reads it waits; after a
`wait` no op begins before what was stored is there. Each way has a stream of its own.

**Source:** early gathers: Zhao et al., "PyTorch FSDP", VLDB 2023, section 3.3.2; without: PyTorch,
`torch.distributed.fsdp.BackwardPrefetch` (`BACKWARD_POST` overlaps the sum of one layer's gradients
with the next layer, and not the gather).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from supernode.plan.memory import Early
from supernode.plan.progress import Task
from supernode.simulate.ask import Asks
from supernode.simulate.line import Line
from supernode.simulate.mail import Mail, Tasks
from supernode.simulate.routine import (
    COMPUTED,
    NOTHING,
    Made,
    Routines,
    Step,
    Stint,
    joined,
)
from supernode.trace import COMM, COMPUTE, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All that a chip of a stage does in a step, calls expanded, in the order it is issued.

    `tasks[i]` is the task of `stints[i]`; the op at place 0 of its line is number `firsts[i]` of
    all ops, and `labels[i]` what of the pipeline's schedule a call belongs to. `early` are the
    buffers of what is issued before its place.
    """

    tasks: list[Task]
    stints: list[Stint]
    firsts: list[int]
    labels: list[str]
    early: list[Early]


class Lane(NamedTuple):
    """A stream of a chip of one stage."""

    stage: int
    stream: Stream
    out: bool = False


def schedule_stages(
    stages: Sequence[Sequence[Line]], asks: Asks, *, bubble: bool = True, prefetch: bool = True
) -> list[Schedule]:
    """The tasks of a chip of each stage, given its lines, with numbers of their own.

    Without a `bubble` no stage waits for what another one sends; without `prefetch` backward
    gathers no weights early.

    Ops that take no time are in no task: what reads a view waits for its base.
    """
    mail, routines, found, first = Mail(waits=bubble), Routines(asks), list[Schedule](), 0
    for stage, lines in enumerate(stages):
        scheduler = _Scheduler(stage, first, mail, prefetch=prefetch)
        for line in lines:
            scheduler.play(line, routines)
        found.append(scheduler.schedule())
        first += len(found[-1].tasks)
    for each in found:
        each.tasks[:] = map(mail.delivered, each.tasks)
    return found


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the program where collectives are issued: after `issued`, at op `position`."""

    issued: Tasks
    position: int
    tasks: list[int] = field(default_factory=list[int])


class _Scheduler:
    def __init__(self, stage: int, first: int, mail: Mail, *, prefetch: bool) -> None:
        self._stage, self._first, self._mail = stage, first, mail
        self._prefetch = prefetch
        self._tasks: list[Task] = []
        self._stints: list[Stint] = []
        self._firsts: list[int] = []
        self._labels: list[str] = []
        self._early: list[Early] = []
        self._made: dict[int, Made] = {}
        self._waited: set[int] = set()  # by what was computed so far
        self._awaited: frozenset[int] = frozenset()  # by what is computed next
        self._position, self._label = 0, ""  # those of the line that is played
        self._issued: Tasks = ()
        self._sent: list[int] = []  # since weights were last gathered
        # Where the stretches of early collectives stand: the last one, and the one before it.
        self._here = self._before = _Slot((), 0)
        # The tasks as they are issued: those of a slot, what follows it, the next slot, ...
        self._order: list[list[int]] = [self._here.tasks, []]

    def play(self, line: Line, routines: Routines) -> None:
        """The tasks of a line."""
        given = [self._left(self._made.get(value.id, NOTHING)) for value in line.given]
        inputs = tuple(
            Made(waits=frozenset((~at,))) if made.waits else made for at, made in enumerate(given)
        )
        found = routines(line.block, inputs)
        stand_ins = (self._mail.stand_in(self._stage, letter.key) for letter in found.received)
        given += [Made(waits=frozenset((number,))) for number in stand_ins]
        done: list[Tasks] = []
        self._label = line.task
        for step in found.steps:
            waits = _resolved(Made(waits=frozenset(step.waits)), given, done).waits
            done.append(self._do(step, waits))
        for value, made in zip(line.made, found.outputs, strict=True):
            self._made[value.id] = _resolved(made, given, done)
        awaited = Made(waits=frozenset(found.awaited))
        self._awaited |= _resolved(awaited, given, done).waits
        self._position += found.length

    def _left(self, made: Made) -> Made:
        """What a value waits for, once all before it is computed."""
        return COMPUTED if made.waits and made.waits <= self._waited else made

    def _do(self, step: Step, waits: frozenset[int]) -> Tasks:
        """The task of a step, if it has one."""
        stint = step.stint
        computes = stint is not None and stint.stream == COMPUTE and not stint.out
        if computes:
            waits |= self._awaited
            self._awaited = frozenset()
        deps = tuple(sorted(waits.union(self._issued) if step.after else waits))
        order, sums = self._order[-1], list[int]()
        if stint is not None and stint.stream == COMM and not deps:
            if not self._prefetch and stint.works[0].op.site.phase == "backward":
                deps, sums = self._issued, self._taken_back(order)
            else:
                order, deps = self._ahead(stint)
        made = deps
        if stint is not None:
            made = (self._issue(stint, deps, order),)
            order += sums
        if computes:
            self._issued = made
            self._waited |= waits
        if step.letter is not None:
            self._mail.send(*step.letter, made)
        return made

    def _taken_back(self, order: list[int]) -> list[int]:
        """The sums of the layer at hand, which go behind the gather of the next one: what was sent
        since the last such gather and nothing computed waits for."""
        sums = [number for number in self._sent if self._first + number not in self._waited]
        for number in sums:
            order.remove(number)
        self._sent.clear()
        return sums

    def _issue(self, stint: Stint, deps: Tasks, order: list[int]) -> int:
        task = self._first + len(self._tasks)
        order.append(len(self._tasks))
        if stint.stream == COMM and not stint.out:
            self._sent.append(len(self._tasks))
        lane = Lane(self._stage, stint.stream, stint.out)
        self._tasks.append(Task(id=task, deps=deps, stream=lane))
        self._stints.append(stint)
        self._firsts.append(self._position)
        self._labels.append(self._label)
        return task

    def _ahead(self, stint: Stint) -> tuple[list[int], Tasks]:
        """Where a collective that waits for nothing is issued: with the stretch before its own."""
        position = self._position + int(stint.places[0])
        if self._here.issued != self._issued:
            self._before, self._here = self._here, _Slot(self._issued, position)
            self._order += [self._here.tasks, []]
            self._sent.clear()
        size_bytes = sum(value.type.size_bytes for value in stint.works[0].op.outputs)
        first = self._before.position
        self._early.append(Early(first=first, last=position, size_bytes=size_bytes))
        return self._before.tasks, self._before.issued

    def schedule(self) -> Schedule:
        """All of it, as it is issued."""
        order = [place for places in self._order for place in places]
        return Schedule(
            tasks=[self._tasks[place] for place in order],
            stints=[self._stints[place] for place in order],
            firsts=[self._firsts[place] for place in order],
            labels=[self._labels[place] for place in order],
            early=self._early,
        )


def _resolved(made: Made, given: Sequence[Made], done: Sequence[Tasks]) -> Made:
    """What a line makes, or a step waits for, by tasks instead of the numbers of the line."""
    if not made.waits:
        return made
    parts = (Made(waits=frozenset(done[n])) if n >= 0 else given[~n] for n in made.waits)
    return joined((Made(made.computed), *parts))
