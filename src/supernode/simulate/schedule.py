"""The tasks of a chip of each stage: what waits for what, and the order on each stream.

Computing keeps the order of the program. A collective is issued where it stands, after the op
before it, and overlaps with what follows until its result is used. One that waits for nothing
computed in this step (a gather of parameters) is issued early: when the stretch of such collectives
before it stands in the program. So the weights of the next layer arrive while this one computes,
and those of two layers are held.

What a stage sends goes on a stream of its own; what reads it on another stage waits for that.

What is fetched from another place begins after the op before it, and what reads it waits; after a
`wait` no op begins before what was stored is there. Each way has a stream of its own.

**Source:** early gathers: Zhao et al., "PyTorch FSDP", VLDB 2023, section 3.3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from supernode.ir import CALL, RECEIVE, SEND, STORE, WAIT, Block, Op, Program
from supernode.plan.memory import Early
from supernode.plan.progress import Task
from supernode.simulate.work import Prices, Work
from supernode.trace import COMPUTE, COPY, Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All work of a step, calls expanded, in the order in which it is issued.

    `tasks[i]` is the task of `works[i]`, `positions[i]` its place among all expanded ops, and
    `labels[i]` what of the pipeline's schedule it belongs to.
    `early` are the buffers of what is issued before its place.
    """

    works: list[Work]
    tasks: list[Task]
    positions: list[int]
    labels: list[str]
    early: list[Early]


Producers = tuple[int, ...]
MadeBy = dict[int, Producers]
"""The tasks that each value waits for."""


class Lane(NamedTuple):
    """A stream of a chip of one stage."""

    stage: int
    stream: Stream
    sends: bool = False


class Mail:
    """What stages send each other: a stand-in for the tasks that a value waits for elsewhere."""

    def __init__(self) -> None:
        self._stands: dict[tuple[int, int], int] = {}
        self._sent: dict[int, Producers] = {}

    def stand_in(self, stage: int, key: int) -> int:
        """The number, below zero, that stands for the message `key` to a stage."""
        return self._stands.setdefault((stage, key), -1 - len(self._stands))

    def send(self, stage: int, key: int, made: Producers) -> None:
        """The message is there when these tasks have ended."""
        self._sent[self.stand_in(stage, key)] = made

    def delivered(self, task: Task) -> Task:
        """The task with those that its messages wait for; one may be passed on as it came."""
        deps = tuple(dep for dep in task.deps if isinstance(dep, int))
        return replace(task, deps=self._resolved(deps))

    def _resolved(self, deps: Producers) -> Producers:
        found: set[int] = set()
        for dep in deps:
            found.update((dep,) if dep >= 0 else self._resolved(self._sent[dep]))
        return tuple(sorted(found))


def schedule_stages(programs: Sequence[Program], prices: Prices) -> list[Schedule]:
    """The tasks of a chip of each stage, with numbers of their own."""
    mail, found, first = Mail(), list[Schedule](), 0
    for stage, program in enumerate(programs):
        found.append(schedule(program, prices, stage, first, mail))
        first += len(found[-1].tasks)
    for each in found:
        each.tasks[:] = map(mail.delivered, each.tasks)
    return found


def schedule(
    program: Program, prices: Prices, stage: int = 0, first: int = 0, mail: Mail | None = None
) -> Schedule:
    """The tasks of `program`, the program of one chip of a stage, numbered from `first` on.

    Ops that take no time are no tasks: what reads a view waits for its base. Each repeated block
    is priced once.
    """
    blocks: Mapping[str, tuple[Block, list[Work | None]]] = {
        block.name: (block, prices.works(block.ops, block.outputs)) for block in program.blocks
    }
    scheduler = _Scheduler(stage, first, mail or Mail())
    made_by: MadeBy = {value.id: () for value in program.main.inputs}
    for op, outer_work in zip(program.main.ops, _main_works(program.main, prices), strict=True):
        if op.name != CALL:
            scheduler.add(op, outer_work, made_by, op.site.task)
            continue
        block, works = blocks[op.block]
        given = zip(block.inputs, op.inputs, strict=True)
        inside = {value.id: made_by[outer.id] for value, outer in given}
        for inner, work in zip(block.ops, works, strict=True):
            scheduler.add(inner, work, inside, op.site.task)
        results = zip(block.outputs, op.outputs, strict=True)
        made_by |= {outer.id: inside[value.id] for value, outer in results}
    return scheduler.schedule()


def _main_works(main: Block, prices: Prices) -> list[Work | None]:
    """The works of the ops between calls, whose blocks have their own."""
    works: list[Work | None] = []
    last = {value.id: at for at, op in enumerate(main.ops) for value in op.inputs}
    last |= dict.fromkeys((value.id for value in main.outputs), len(main.ops))
    for at_call, ops in groupby(main.ops, key=lambda op: op.name == CALL):
        stretch = list(ops)
        end = len(works) + len(stretch)
        if at_call:
            works += [None] * len(stretch)
            continue
        made = (value for op in stretch for value in op.outputs)
        works += prices.works(stretch, [value for value in made if last.get(value.id, 0) >= end])
    return works


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the program where collectives are issued: after `issued`, at op `position`."""

    issued: Producers
    position: int
    tasks: list[int] = field(default_factory=list[int])


class _Scheduler:
    def __init__(self, stage: int, first: int, mail: Mail) -> None:
        self._stage, self._first, self._mail = stage, first, mail
        self._works: list[Work] = []
        self._tasks: list[Task] = []
        self._positions: list[int] = []
        self._labels: list[str] = []
        self._early: list[Early] = []
        self._position = 0
        self._issued: Producers = ()
        self._awaited: set[int] = set()  # what the next op that computes waits for
        # Where the stretches of early collectives stand: the last one, and the one before it.
        self._here = self._before = _Slot((), 0)
        # The tasks as they are issued: those of a slot, what follows it, the next slot, ...
        self._order: list[list[int]] = [self._here.tasks, []]

    def add(self, op: Op, work: Work | None, made_by: MadeBy, label: str) -> None:
        found = {task for value in op.inputs for task in made_by[value.id]}
        if work is not None:
            self._labels.append(label)
            found = {self._issue(op, work, found)}
        made = tuple(sorted(found))
        if op.name == SEND:
            self._mail.send(*_address(op), made)
        elif op.name == WAIT:
            self._awaited.update(made_by[op.inputs[1].id])
        elif op.name == RECEIVE:
            made = (self._mail.stand_in(self._stage, _address(op)[1]),)
        for value in op.outputs:
            made_by[value.id] = made
        self._position += 1

    def _issue(self, op: Op, work: Work, found: set[int]) -> int:
        task = self._first + len(self._tasks)
        stream = work.price.stream
        order = self._order[-1]
        deps = tuple(sorted(found))
        if stream == COMPUTE:
            deps = tuple(sorted(found | self._awaited))
            self._issued = (task,)
            self._awaited.clear()
        elif found or stream == COPY:
            deps = tuple(sorted(found.union(self._issued)))
        else:
            order, deps = self._ahead(op)
        order.append(task)
        self._works.append(work)
        outgoing = op.name == SEND or (op.name == STORE and stream == COPY)
        lane = Lane(self._stage, stream, outgoing)
        self._tasks.append(Task(id=task, deps=deps, stream=lane))
        self._positions.append(self._position)
        return task

    def _ahead(self, op: Op) -> tuple[list[int], Producers]:
        """Where a collective that waits for nothing is issued: with the stretch before its own."""
        if self._here.issued != self._issued:
            self._before, self._here = self._here, _Slot(self._issued, self._position)
            self._order += [self._here.tasks, []]
        size_bytes = sum(value.type.size_bytes for value in op.outputs)
        first = self._before.position
        self._early.append(Early(first=first, last=self._position, size_bytes=size_bytes))
        return self._before.tasks, self._before.issued

    def schedule(self) -> Schedule:
        order = [task for tasks in self._order for task in tasks]
        places = [task - self._first for task in order]
        return Schedule(
            works=[self._works[place] for place in places],
            tasks=[self._tasks[place] for place in places],
            positions=[self._positions[place] for place in places],
            labels=[self._labels[place] for place in places],
            early=self._early,
        )


def _address(op: Op) -> tuple[int, int]:
    """The stage a message goes to or comes from, and its key."""
    _, _, stage, key = op.args
    assert isinstance(stage, int)
    assert isinstance(key, int)
    return stage, key
