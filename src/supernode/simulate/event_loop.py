"""The event loop: when each task of one chip starts and ends."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from supernode.plan.progress import Progress, Task
from supernode.simulate.event import EventQueue
from supernode.trace import COMM


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


def run_tasks(tasks: Sequence[Task], duration_s: Sequence[float]) -> Times:
    """Runs the tasks in virtual time; `duration_s[i]` is how long task `i` takes.

    Of two tasks that end at the same time the one that communicates ends first.
    """
    start_s, end_s = [0.0] * len(tasks), [0.0] * len(tasks)
    cause: list[int | None] = [None] * len(tasks)
    progress, queue = Progress(tasks), EventQueue()
    places = {task.id: place for place, task in enumerate(tasks)}

    def launch(started: Iterable[Task], now_s: float, ended: int | None) -> None:
        for task in started:
            place = places[task.id]
            start_s[place], end_s[place] = now_s, now_s + duration_s[place]
            cause[place] = ended
            queue.push(end_s[place], 0 if task.stream == COMM else 1, place)

    launch(progress.start(), 0.0, None)
    while queue:
        event = queue.pop()
        launch(progress.finish(tasks[event.task].id), event.time_s, event.task)
    assert progress.done, f"tasks wait for each other: {progress.stuck()}"
    return Times(start_s=start_s, end_s=end_s, cause=cause)


def critical_path_s(tasks: Sequence[Task], duration_s: Sequence[float]) -> float:
    """The longest chain of tasks that wait for each other: no number of streams is faster."""
    end_s: dict[Hashable, float] = {}
    for task, length_s in zip(tasks, duration_s, strict=True):
        end_s[task.id] = length_s + max((end_s[dep] for dep in task.deps), default=0.0)
    return max(end_s.values(), default=0.0)
