"""Played: a step of all stages in virtual time, op by op."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from supernode.simulate.ask import Ask
from supernode.simulate.event_loop import Times, run_tasks
from supernode.simulate.price import Prices
from supernode.simulate.stages import Stages
from supernode.simulate.timing import Timing
from supernode.trace import COMPUTE, Stream

Floats = NDArray[np.float64]
Chosen = NDArray[np.bool_]


class Spent(NamedTuple):
    """All ops that ask the same: how long one takes alone, how many there are, and their time."""

    ask: Ask
    alone: Timing
    ops: int
    time_s: float


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a chip of each stage did; `alone[i]` is what has number `i` takes by itself.

    `times` are those of the tasks; op `j` went from `start_s[j]` to `end_s[j]`.
    """

    stages: Stages
    alone: Sequence[Timing]
    times: Times
    start_s: Floats
    end_s: Floats

    @cached_property
    def busiest(self) -> int:
        """The stage that computes longest."""
        return max(range(self.count), key=lambda stage: self._busy_s(stage, COMPUTE))

    @property
    def count(self) -> int:
        """How many stages there are."""
        return len(self.stages.ranks)

    def mean_busy_s(self, stream: Stream) -> float:
        """How long a stream is at work, on the mean of the stages."""
        return fsum(self._busy_s(stage, stream) for stage in range(self.count)) / self.count

    def _busy_s(self, stage: int, stream: Stream) -> float:
        return fsum(
            self.times.end_s[task] - self.times.start_s[task]
            for task in self._tasks(stage)
            if self.stages.stints[task].stream == stream
        )

    def _tasks(self, stage: int) -> range:
        return range(self.stages.first[stage], self.stages.first[stage + 1])

    def ops(self, stage: int) -> slice:
        """The ops of a stage."""
        tasks = self._tasks(stage)
        return slice(int(self.stages.begins[tasks.start]), int(self.stages.begins[tasks.stop]))

    def of_stage(self, stage: int) -> list[Spent]:
        """What a chip of a stage spent its time on."""
        return self._spent(self.ops(stage))

    def of_all(self) -> list[Spent]:
        """What the chips of all stages spent their time on."""
        return self._spent(slice(None))

    def critical(self) -> list[Spent]:
        """What decided the length of the step."""
        chosen = np.zeros(len(self.stages.tasks), dtype=bool)
        chosen[self.times.critical_tasks()] = True
        return self._spent(np.repeat(chosen, np.diff(self.stages.begins)))

    def _spent(self, ops: slice | Chosen) -> list[Spent]:
        asked = self.stages.asked[ops]
        took_s = self.end_s[ops] - self.start_s[ops]
        counts = np.bincount(asked, minlength=len(self.alone)).tolist()
        times_s = np.bincount(asked, weights=took_s, minlength=len(self.alone)).tolist()
        found = map(Spent, self.stages.asks.of, self.alone, counts, times_s)
        return [spent for spent in found if spent.ops]

    def roofline_s(self) -> float:
        """The time that what the busiest stage computes takes at the datasheet's rates."""
        return max(
            fsum(
                spent.ops * spent.alone.bound_s
                for spent in self.of_stage(stage)
                if spent.ask.stream == COMPUTE
            )
            for stage in range(self.count)
        )

    def critical_path_s(self) -> float:
        """The longest chain of ops that wait for each other, over all stages."""
        return self.stages.chains.longest_s([timing.time_s for timing in self.alone])


def play(stages: Stages, prices: Prices) -> Played:
    """A step of these stages at the prices of a machine."""
    machine, terms = prices.machine, prices.terms
    alone = [prices.of(ask) for ask in stages.asks.of]
    alone_s = np.array([timing.time_s for timing in alone])
    each_s = {id(stint): alone_s[stint.asks].cumsum() for stint in stages.stints}
    parts_s = [each_s[id(stint)] for stint in stages.stints]
    lengths_s = [float(part_s[-1]) for part_s in parts_s]
    times = run_tasks(stages.tasks, lengths_s, beside=terms.beside(machine.chip))
    times = times.after(terms.host_s(machine))
    start_s, end_s = _ops_of(times, parts_s, stages)
    return Played(stages=stages, alone=alone, times=times, start_s=start_s, end_s=end_s)


def _ops_of(times: Times, parts_s: Sequence[Floats], stages: Stages) -> tuple[Floats, Floats]:
    """When the ops of each task start and end; `parts_s` is when each does alone, from its own."""
    if not stages.tasks:
        return np.empty(0), np.empty(0)
    begins, lasts = stages.begins[:-1], stages.begins[1:] - 1
    end_s = np.concatenate(parts_s) + np.repeat(times.start_s, np.diff(stages.begins))
    for task, pace in times.paces.items():
        at_s, left_s = zip(*pace, (times.end_s[task], 0.0), strict=True)
        done_s = parts_s[task][-1] - np.array(left_s)
        end_s[begins[task] : lasts[task] + 1] = np.interp(parts_s[task], done_s, at_s)
    end_s[lasts] = times.end_s
    start_s = np.concatenate(([0.0], end_s[:-1]))
    start_s[begins] = times.start_s
    return start_s, end_s
