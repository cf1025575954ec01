"""The event loop: when each task of a chip of each stage starts and ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from supernode.plan.progress import Progress, Task
from supernode.simulate.event import EventQueue
from supernode.simulate.schedule import Lane
from supernode.trace import COMM, COMPUTE

Pace = list[tuple[float, float]]
"""When the rate of a task was set or changed, and how many seconds of work were left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When each task starts and ends; `cause[i]` is the task whose end let task `i` start.

    Every task starts the moment its cause ends, so the causes of the last task, back to one that
    starts at zero, cover the step without gaps. `paces` are those of the tasks that had not the
    full rate all the time.
    """

    start_s: list[float]
    end_s: list[float]
    cause: list[int | None]
    paces: Mapping[int, Pace] = field(default_factory=dict[int, Pace])

    @property
    def step_s(self) -> float:
        """When the last task ends."""
        return max(self.end_s, default=0.0)

    def after(self, wait_s: float) -> "Times":
        """The same, begun `wait_s` later."""
        if not wait_s:
            return self
        return replace(
            self,
            start_s=[start + wait_s for start in self.start_s],
            end_s=[end + wait_s for end in self.end_s] or [wait_s],
            paces={
                place: [(at_s + wait_s, left_s) for at_s, left_s in pace]
                for place, pace in self.paces.items()
            },
        )

    def critical_tasks(self) -> list[int]:
        """The tasks that decided the length of the step, in order of time."""
        if not self.end_s:
            return []
        at: int | None = max(range(len(self.end_s)), key=lambda task: self.end_s[task])
        found: list[int] = []
        while at is not None:
            found.append(at)
            at = self.cause[at]
        return found[::-1]


def run_tasks(tasks: Sequence[Task], duration_s: Sequence[float], *, beside: float = 1.0) -> Times:
    """Runs the tasks in virtual time; `duration_s[i]` is how long task `i` takes by itself.

    The stream of each task is a `Lane`. A task that computes does `beside` of its work a second
    while another of its stage communicates; copies from and to other places slow nothing. Of two
    tasks that end at the same time one that computes ends last.
    """
    return _Loop(tasks, duration_s, beside).run()


class _Loop:
    def __init__(self, tasks: Sequence[Task], duration_s: Sequence[float], beside: float) -> None:
        self._tasks = tasks
        self._places = {task.id: place for place, task in enumerate(tasks)}
        lanes = [lane for task in tasks if isinstance(lane := task.stream, Lane)]
        assert len(lanes) == len(tasks), "a task of no stage"
        self._stages = [lane.stage for lane in lanes]
        self._streams = [lane.stream for lane in lanes]
        self._left_s = list(duration_s)
        self._beside = beside
        self._start_s = [0.0] * len(tasks)
        self._end_s = [0.0] * len(tasks)
        self._cause: list[int | None] = [None] * len(tasks)
        self._paces: dict[int, Pace] = {}
        self._queue = EventQueue()
        # By stage: what computes, each since when at the rate it has now, and the rate; how many
        # tasks communicate.
        stages = range(1 + max(self._stages, default=-1))
        self._computing: list[dict[int, float]] = [{} for _ in stages]
        self._rate = [1.0 for _ in stages]
        self._communicating = [0 for _ in stages]
        self._running: set[int] = set()

    def run(self) -> Times:
        progress = Progress(self._tasks)
        self._launch(progress.start(), 0.0, None)
        while self._queue:
            event = self._queue.pop()
            place = event.task
            if event.time_s != self._end_s[place] or place not in self._running:
                continue  # since then its rate has changed
            self._end(place, event.time_s)
            self._launch(progress.finish(self._tasks[place].id), event.time_s, place)
        assert progress.done, f"tasks wait for each other: {progress.stuck()}"
        return Times(start_s=self._start_s, end_s=self._end_s, cause=self._cause, paces=self._paces)

    def _launch(self, started: Iterable[Task], now_s: float, ended: int | None) -> None:
        for task in started:
            place = self._places[task.id]
            self._start_s[place], self._cause[place] = now_s, ended
            self._running.add(place)
            stage, left_s = self._stages[place], self._left_s[place]
            if self._streams[place] == COMM:
                self._count(stage, 1, now_s)
            if self._streams[place] != COMPUTE:
                self._push(place, now_s + left_s)
            else:
                self._computing[stage][place] = now_s
                rate = self._rate[stage]
                if rate != 1:
                    self._paces[place] = [(now_s, left_s)]
                self._push(place, now_s + left_s / rate)

    def _end(self, place: int, now_s: float) -> None:
        self._running.remove(place)
        if self._streams[place] == COMM:
            self._count(self._stages[place], -1, now_s)
        elif self._streams[place] == COMPUTE:
            del self._computing[self._stages[place]][place]

    def _push(self, place: int, end_s: float) -> None:
        self._end_s[place] = end_s
        self._queue.push(end_s, 1 if self._streams[place] == COMPUTE else 0, place)

    def _count(self, stage: int, more: int, now_s: float) -> None:
        """One task more or less communicates: what computes there goes on at another rate."""
        self._communicating[stage] += more
        before, rate = self._rate[stage], self._beside if self._communicating[stage] else 1.0
        if rate == before:
            return
        self._rate[stage] = rate
        for place, since_s in self._computing[stage].items():
            pace = self._paces.setdefault(place, [(since_s, self._left_s[place])])
            left_s = max(self._left_s[place] - (now_s - since_s) * before, 0.0)
            pace.append((now_s, left_s))
            self._left_s[place] = left_s
            self._computing[stage][place] = now_s
            self._push(place, now_s + left_s / rate)
