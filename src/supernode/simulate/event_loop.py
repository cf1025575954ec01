"""The event loop: when each task of a chip of each stage starts and ends."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from supernode.plan.progress import Progress, Task
from supernode.simulate.event import EventQueue
from supernode.simulate.schedule import Lane
from supernode.trace import COMM, COMPUTE, COPY


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When each task starts and ends; `cause[i]` is the task whose end let task `i` start.

    Every task starts the moment its cause ends, so the causes of the last task, back to one that
    starts at zero, cover the step without gaps.
    """

    start_s: list[float]
    end_s: list[float]
    cause: list[int | None]

    @property
    def step_s(self) -> float:
        """When the last task ends."""
        return max(self.end_s, default=0.0)

    def after(self, wait_s: float) -> "Times":
        """The same, begun `wait_s` later."""
        if not wait_s:
            return self
        start_s = [start + wait_s for start in self.start_s]
        end_s = [end + wait_s for end in self.end_s] or [wait_s]
        return Times(start_s=start_s, end_s=end_s, cause=self.cause)

    def durations_s(self) -> list[float]:
        """How long each task took."""
        return [end - start for start, end in zip(self.start_s, self.end_s, strict=True)]

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
        self._left_s = list(duration_s)
        self._beside = beside
        self._times = Times(
            start_s=[0.0] * len(tasks), end_s=[0.0] * len(tasks), cause=[None] * len(tasks)
        )
        self._queue = EventQueue()
        self._computing: dict[int, dict[int, float]] = defaultdict(
            dict
        )  # by stage, since when each has run at the rate it has now
        self._communicating: Counter[int] = Counter()  # tasks of each stage
        self._running: set[int] = set()

    def run(self) -> Times:
        progress = Progress(self._tasks)
        self._launch(progress.start(), 0.0, None)
        while self._queue:
            event = self._queue.pop()
            place = event.task
            if event.time_s != self._times.end_s[place] or place not in self._running:
                continue  # since then its rate has changed
            self._end(place, event.time_s)
            self._launch(progress.finish(self._tasks[place].id), event.time_s, place)
        assert progress.done, f"tasks wait for each other: {progress.stuck()}"
        return self._times

    def _launch(self, started: Iterable[Task], now_s: float, ended: int | None) -> None:
        for task in started:
            place = self._places[task.id]
            self._times.start_s[place], self._times.cause[place] = now_s, ended
            self._running.add(place)
            stage = self._lane(place).stage
            if self._lane(place).stream == COPY:
                self._push(place, now_s + self._left_s[place])
            elif self._lane(place).stream == COMM:
                self._count(stage, 1, now_s)
                self._push(place, now_s + self._left_s[place])
            else:
                self._computing[stage][place] = now_s
                self._push(place, now_s + self._left_s[place] / self._rate(stage))

    def _end(self, place: int, now_s: float) -> None:
        self._running.remove(place)
        stage = self._lane(place).stage
        if self._lane(place).stream == COMM:
            self._count(stage, -1, now_s)
        else:
            self._computing[stage].pop(place, None)

    def _lane(self, place: int) -> Lane:
        lane = self._tasks[place].stream
        assert isinstance(lane, Lane)
        return lane

    def _push(self, place: int, end_s: float) -> None:
        self._times.end_s[place] = end_s
        self._queue.push(end_s, 1 if self._lane(place).stream == COMPUTE else 0, place)

    def _rate(self, stage: int) -> float:
        return self._beside if self._communicating[stage] else 1.0

    def _count(self, stage: int, more: int, now_s: float) -> None:
        """One task more or less communicates: what computes there goes on at another rate."""
        before = self._rate(stage)
        self._communicating[stage] += more
        if self._rate(stage) == before:
            return
        for place, since_s in self._computing[stage].items():
            self._left_s[place] -= (now_s - since_s) * before
            self._computing[stage][place] = now_s
            self._push(place, now_s + max(self._left_s[place], 0.0) / self._rate(stage))


def critical_path_s(tasks: Sequence[Task], duration_s: Sequence[float]) -> float:
    """The longest chain of tasks that wait for each other: no number of streams is faster."""
    end_s: dict[Hashable, float] = {}
    for task, length_s in zip(tasks, duration_s, strict=True):
        end_s[task.id] = length_s + max((end_s[dep] for dep in task.deps), default=0.0)
    return max(end_s.values(), default=0.0)
