"""The longest chain of ops that wait for each other: no number of streams is faster.

Other than a stream, which does its ops in order, a chain goes from an op to one that reads what it
makes; to a collective also from the op before it, after which it is issued.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from supernode.ir import RECEIVE, SEND, WAIT, Block
from supernode.simulate.ask import Asks
from supernode.simulate.line import Line
from supernode.simulate.routine import Letter
from supernode.trace import COMPUTE, COPY, Stream


class _Link(NamedTuple):
    """An op that takes time, or a message, and the places of what it waits for.

    Place `i` of a line is its input `i`; its links follow. `ask` is -1 for what takes no time.
    """

    ask: int
    waits: tuple[int, ...]
    stream: Stream = COMPUTE
    sent: Letter | None = None
    received: Letter | None = None


@dataclass(frozen=True, slots=True)
class _Chain:
    """The links of a block, what its outputs wait for, and what is computed next behind it."""

    links: tuple[_Link, ...]
    outputs: tuple[tuple[int, ...], ...]
    awaited: tuple[int, ...]


class Chains:
    """The chains of all stages, to be measured on machine after machine.

    Without a `bubble` no chain goes from one stage to another.
    """

    def __init__(
        self, stages: Sequence[Sequence[Line]], asks: Asks, *, bubble: bool = True
    ) -> None:
        self._stages, self._bubble = stages, bubble
        blocks = {id(line.block): line.block for lines in stages for line in lines}
        self._chains = {key: _chain(block, asks) for key, block in blocks.items()}

    def longest_s(self, alone_s: Sequence[float]) -> float:
        """The longest one, where what has number `i` takes `alone_s[i]`."""
        mail: dict[tuple[int, int], float] = {}
        most = [0.0]
        going = [self._walk(stage, alone_s, mail, most) for stage in range(len(self._stages))]
        while going:
            going = [walk for walk in going if next(walk, _DONE) is not _DONE]
        return max(most)

    def _walk(
        self,
        stage: int,
        alone_s: Sequence[float],
        mail: dict[tuple[int, int], float],
        most: list[float],
    ) -> Iterator[None]:
        """Goes through a stage; yields while it waits for a message."""
        made: dict[int, float] = {}
        # When what was last issued ends, and what was where early collectives stand: the last
        # stretch of them, and the one before it.
        issued = here = before = awaited = 0.0
        moved = False  # whether anything was issued since
        for line in self._stages[stage]:
            chain = self._chains[id(line.block)]
            ends = [made.get(value.id, 0.0) for value in line.given]
            for ask, waits, stream, sent, received in chain.links:
                comes = received if self._bubble else None
                while comes is not None and (stage, comes.key) not in mail:
                    yield
                end = mail[stage, comes.key] if comes else _latest(ends, waits)
                if ask >= 0 and stream == COMPUTE:
                    end = issued = max(end, awaited) + alone_s[ask]
                    moved, awaited = True, 0.0
                elif ask >= 0 and (end or stream == COPY):
                    end = max(end, issued) + alone_s[ask]
                elif ask >= 0:
                    if moved:
                        before, here, moved = here, issued, False
                    end = before + alone_s[ask]
                if sent is not None:
                    mail[sent.stage, sent.key] = end
                ends.append(end)
            most.append(max(ends, default=0.0))
            for value, waits in zip(line.made, chain.outputs, strict=True):
                made[value.id] = _latest(ends, waits)
            awaited = max(awaited, _latest(ends, chain.awaited))


_DONE = object()


def _latest(ends: Sequence[float], waits: tuple[int, ...]) -> float:
    if len(waits) == 1:
        return ends[waits[0]]
    return max(map(ends.__getitem__, waits), default=0.0)


def _chain(block: Block, asks: Asks) -> _Chain:
    waits = {value.id: (place,) for place, value in enumerate(block.inputs)}
    links: list[_Link] = []
    before = [frozenset[int]() for _ in block.inputs]  # what each place waits for
    awaited: set[int] = set()
    for op, work in zip(block.ops, asks.works(block), strict=True):
        places = {place for value in op.inputs for place in waits[value.id]}
        stream = COMPUTE if work is None else asks.of[work.ask].stream
        letter = Letter.of(op) if op.name in (SEND, RECEIVE) else None
        if op.name == WAIT:
            awaited.update(waits[op.inputs[1].id])
        if work is not None and stream == COMPUTE:
            places |= awaited
            awaited = set()
        found = _last(places, before)
        if work is not None or letter is not None:
            ask = -1 if work is None else work.ask
            sent = letter if op.name == SEND else None
            links.append(_Link(ask, found, stream, sent, letter if sent is None else None))
            before.append(frozenset(found))
            if work is None or not asks.hidden(work.ask):
                found = (len(before) - 1,)
        waits |= dict.fromkeys((value.id for value in op.outputs), found)
    outputs = tuple(waits[value.id] for value in block.outputs)
    return _Chain(tuple(links), outputs, tuple(sorted(awaited)))


def _last(places: set[int], before: Sequence[frozenset[int]]) -> tuple[int, ...]:
    """Those of the places that none of the others waits for: all the rest end before them."""
    return tuple(sorted(places.difference(*(before[place] for place in places))))
