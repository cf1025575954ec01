"""What a line of ops makes a chip do: its stints, and what each of them waits for.

A *stint* is what a stream does without waiting in between: a collective, or all ops computed
between two points at which computing waits for communication, or communication for it. A stream
does its stints in order, so who waits for the last one waits for all before it. That is why of a
value that is computed only this much is kept, and of one that comes in, by what it comes.

A block that is called many times has one routine for each way its inputs come about.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from supernode.ir import RECEIVE, SEND, STORE, WAIT, Block, Op
from supernode.simulate.ask import Asks, Work
from supernode.trace import COMM, COMPUTE, COPY, Stream


class Made(NamedTuple):
    """What a value waits for: ops computed before it or not, and communication by number.

    In a routine the numbers are those of its steps, and below zero those of what it is given:
    ~0 is the first of its inputs, and the messages that come in follow the inputs.
    """

    computed: bool = False
    waits: frozenset[int] = frozenset()


NOTHING, COMPUTED = Made(), Made(computed=True)
"""What is there from the start, and what is there once the stream that computes has come so far."""


class Letter(NamedTuple):
    """A message of another stage, or to it: which stage, and the key of the message."""

    stage: int
    key: int

    @staticmethod
    def of(op: Op) -> "Letter":
        """That of a send or receive."""
        _, _, stage, key = op.args[:4]
        assert isinstance(stage, int)
        assert isinstance(key, int)
        return Letter(stage, key)


@dataclass(frozen=True, slots=True, eq=False)
class Stint:
    """Work in a row on one stream; `places[i]` is the place of `works[i]` in its line.

    What goes `out`, to another stage or place, has a stream beside that of what comes in.
    """

    works: tuple[Work, ...]
    places: NDArray[np.int64]
    asks: NDArray[np.int64]
    stream: Stream
    out: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A stint, and the numbers of what it waits for.

    `after` says that it also waits for all that was computed before it. Communication that does
    not, and waits for nothing else, needs nothing made in this step. `letter` is the message that
    it sends; one of no size takes no time, and has no stint.
    """

    stint: Stint | None
    waits: tuple[int, ...]
    after: bool = False
    letter: Letter | None = None


@dataclass(frozen=True, slots=True)
class Routine:
    """The steps of a line of `length` ops, what its outputs wait for, and what comes in.

    What is computed next, behind the line, waits for what is `awaited` too.
    """

    steps: tuple[Step, ...]
    outputs: tuple[Made, ...]
    received: tuple[Letter, ...]
    awaited: tuple[int, ...]
    length: int


class Routines:
    """The routine of each block for each way its inputs come about, found once."""

    def __init__(self, asks: Asks) -> None:
        self._asks = asks
        self._known: dict[tuple[int, tuple[Made, ...]], Routine] = {}

    def __call__(self, block: Block, inputs: tuple[Made, ...]) -> Routine:
        """That of `block`, whose inputs wait for these."""
        key = (id(block), inputs)
        if key not in self._known:
            works = self._asks.works(block)
            writer = _Writer(block, inputs, self._asks)
            for place, (op, work) in enumerate(zip(block.ops, works, strict=True)):
                writer.write(place, op, work)
            self._known[key] = writer.routine()
        return self._known[key]


def joined(parts: Iterable[Made]) -> Made:
    """What waits for all of these."""
    found = set(parts)
    if len(found) == 1:
        return found.pop()
    waits = frozenset[int]().union(*(part.waits for part in found))
    return Made(any(part.computed for part in found), waits)


class _Writer:
    def __init__(self, block: Block, inputs: Sequence[Made], asks: Asks) -> None:
        self._block, self._asks = block, asks
        self._made: dict[int, Made] = {
            value.id: made for value, made in zip(block.inputs, inputs, strict=True)
        }
        self._steps: list[Step] = []
        self._received: list[Letter] = []
        self._open: list[tuple[int, Work]] = []
        self._waits: frozenset[int] = frozenset()  # of the open stint
        self._waited: set[int] = set()  # by what was computed so far
        self._awaited: frozenset[int] = frozenset()  # by what is computed next

    def write(self, place: int, op: Op, work: Work | None) -> None:
        made = joined(self._made[value.id] for value in op.inputs)
        if op.name == RECEIVE:
            self._received.append(Letter.of(op))
            number = len(self._block.inputs) + len(self._received) - 1
            made = Made(waits=frozenset((~number,)))
        elif op.name == SEND:
            self._send(place, op, work, made)
        elif op.name == WAIT:
            self._awaited |= self._made[op.inputs[1].id].waits
        elif work is not None:
            made = self._do(place, op, work, made)
        for value in op.outputs:
            self._made[value.id] = made

    def _do(self, place: int, op: Op, work: Work, made: Made) -> Made:
        stream = self._asks.of[work.ask].stream
        if stream != COMPUTE:
            stint = _stint([(place, work)], stream, out=op.name == STORE)
            after = stream == COPY or made != NOTHING
            self._communicate(Step(stint, _numbers(self._left(made)), after))
            if self._asks.hidden(work.ask):
                return COMPUTED
            return Made(waits=frozenset((len(self._steps) - 1,)))
        waits = made.waits.union(self._awaited) - self._waited
        self._awaited = frozenset()
        if waits:
            self._close()
            self._waits = waits
            self._waited |= waits
        self._open.append((place, work))
        return COMPUTED

    def _send(self, place: int, op: Op, work: Work | None, made: Made) -> None:
        stream = COMM if work is None else self._asks.of[work.ask].stream
        stint = None if work is None else _stint([(place, work)], stream, out=True)
        after = made.computed if stream == COMPUTE else made != NOTHING
        self._communicate(Step(stint, _numbers(self._left(made)), after, Letter.of(op)))

    def _communicate(self, step: Step) -> None:
        self._close()
        self._steps.append(step)

    def _close(self) -> None:
        """What is computed from here on is another stint."""
        if self._open:
            self._steps.append(Step(_stint(self._open, COMPUTE), tuple(sorted(self._waits))))
        self._open, self._waits = [], frozenset()

    def routine(self) -> Routine:
        self._close()
        outputs = [self._left(self._made[value.id]) for value in self._block.outputs]
        return Routine(
            steps=tuple(self._steps),
            outputs=tuple(outputs),
            received=tuple(self._received),
            awaited=tuple(sorted(self._awaited - self._waited)),
            length=len(self._block.ops),
        )

    def _left(self, made: Made) -> Made:
        """What a value waits for, once this line has been computed."""
        left = made.waits - self._waited
        return Made(made.computed or left != made.waits, left)


def _stint(works: Sequence[tuple[int, Work]], stream: Stream, *, out: bool = False) -> Stint:
    places, done = zip(*works, strict=True)
    asks = np.array([work.ask for work in done])
    return Stint(done, np.array(places), asks, stream, out)


def _numbers(made: Made) -> tuple[int, ...]:
    return tuple(sorted(made.waits))
