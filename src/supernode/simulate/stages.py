"""A chip of each stage of a plan, run in virtual time; without a pipeline there is one stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum

from supernode.machine import Machine
from supernode.plan import Plan, Task, memory
from supernode.plan.memory import MemoryUse
from supernode.simulate.event_loop import Times, critical_path_s, run_tasks
from supernode.simulate.schedule import Schedule, schedule_stages
from supernode.simulate.terms import Terms
from supernode.simulate.work import Prices, Work
from supernode.trace import COMPUTE, Stream

Critical = Sequence[tuple[Work, float]]
"""What the step waited for, each with how long it took."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a chip of each stage did. `tasks` and their `times` are those of all stages in turn."""

    ranks: Sequence[int]
    stages: Sequence[Schedule]
    times: Times
    memories: Sequence[MemoryUse]

    @cached_property
    def works(self) -> list[Work]:
        """The work of each task."""
        return [work for todo in self.stages for work in todo.works]

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks of all stages."""
        return [task for todo in self.stages for task in todo.tasks]

    @cached_property
    def alone_s(self) -> list[float]:
        """How long each task takes by itself."""
        return [work.price.timing.time_s for work in self.works]

    @cached_property
    def busiest(self) -> int:
        """The stage that computes longest."""
        return max(range(len(self.stages)), key=lambda stage: self._busy_s(stage, COMPUTE))

    def mean_busy_s(self, stream: Stream) -> float:
        """How long a stream is at work, on the mean of the stages."""
        stages = range(len(self.stages))
        return fsum(self._busy_s(stage, stream) for stage in stages) / len(self.stages)

    def of_stage(self, stage: int) -> Critical:
        """What a chip of a stage did, each with how long it took."""
        first = sum(len(todo.works) for todo in self.stages[:stage])
        works = self.stages[stage].works
        return list(zip(works, self._durations_s[first : first + len(works)], strict=True))

    def _busy_s(self, stage: int, stream: Stream) -> float:
        works = self.of_stage(stage)
        return fsum(time_s for work, time_s in works if work.price.stream == stream)

    @cached_property
    def _durations_s(self) -> list[float]:
        return self.times.durations_s()

    def roofline_s(self) -> float:
        """The time that what the busiest stage computes takes at the datasheet's rates."""
        return max(
            fsum(w.price.timing.bound_s for w in todo.works if w.price.stream == COMPUTE)
            for todo in self.stages
        )

    def critical_path_s(self) -> float:
        """The longest chain of tasks that wait for each other, over all stages."""
        order = sorted(range(len(self.tasks)), key=lambda place: self.times.start_s[place])
        return critical_path_s(
            [self.tasks[place] for place in order], [self.alone_s[place] for place in order]
        )

    def critical(self) -> Critical:
        """What decided the length of the step, in order of time."""
        places = self.times.critical_tasks()
        return [(self.works[place], self._durations_s[place]) for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A chip of each stage, by its rank: what it has to do, and the memory that takes."""

    ranks: Sequence[int]
    stages: Sequence[Schedule]
    memories: Sequence[MemoryUse]

    @staticmethod
    def of(plan: Plan, prices: Prices) -> "Ready":
        """The stages of `plan`, with their prices."""
        ranks, programs = zip(*plan.stages(), strict=True)
        stages = schedule_stages(programs, prices)
        memories = [
            memory(program, early=todo.early).lending(plan.lent_bytes(rank, in_place=True))
            for rank, program, todo in zip(ranks, programs, stages, strict=True)
        ]
        return Ready(ranks=ranks, stages=stages, memories=memories)

    def again(self, prices: Prices) -> "Ready":
        """The same at other prices."""
        stages = [replace(todo, works=prices.again(todo.works)) for todo in self.stages]
        return replace(self, stages=stages)

    def run(self, machine: Machine, terms: Terms) -> Run:
        """A step in virtual time."""
        tasks = [task for todo in self.stages for task in todo.tasks]
        alone_s = [work.price.timing.time_s for todo in self.stages for work in todo.works]
        times = run_tasks(tasks, alone_s, beside=terms.beside(machine.chip))
        return Run(
            ranks=self.ranks,
            stages=self.stages,
            times=times.after(terms.host_s(machine)),
            memories=self.memories,
        )
