"""Progress: the one state machine that says what may start next, given what has finished.

It knows no clock and no chip. Real completions drive it in `run`, an event queue in `simulate`.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something to do: after all of `deps` have finished, in its turn on `stream`.

    A stream does one task at a time, in the order in which `Progress` was given them.
    """

    id: Hashable
    deps: tuple[Hashable, ...] = ()
    stream: Hashable


class Progress:
    """What has started and finished of a list of tasks; the list is a total order.

    Tasks that become startable together are given in the order of the list, so the same
    completions always lead to the same starts.

    >>> load = Task(id="load", stream="copy")
    >>> work = Task(id="work", deps=("load",), stream="compute")
    >>> progress = Progress((load, work))
    >>> [task.id for task in progress.start()], [task.id for task in progress.finish("load")]
    (['load'], ['work'])
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = tuple(tasks)
        self._place = {task.id: place for place, task in enumerate(self._tasks)}
        assert len(self._place) == len(self._tasks), "two tasks have one id"
        self._blockers = [0] * len(self._tasks)
        self._waiting: list[list[int]] = [[] for _ in self._tasks]
        self._running: set[int] = set()
        self._started = False
        self._left = len(self._tasks)
        last_on: dict[Hashable, int] = {}
        for place, task in enumerate(self._tasks):
            before = {self._place[dep] for dep in task.deps}
            if task.stream in last_on:
                before.add(last_on[task.stream])
            last_on[task.stream] = place
            self._blockers[place] = len(before)
            for earlier in before:
                self._waiting[earlier].append(place)

    @property
    def done(self) -> bool:
        """Whether every task has finished."""
        return self._left == 0

    def start(self) -> tuple[Task, ...]:
        """The tasks that may start at once; to be called once, first."""
        assert not self._started, "already started"
        self._started = True
        return self._starting(place for place, count in enumerate(self._blockers) if not count)

    def finish(self, id: Hashable) -> tuple[Task, ...]:
        """Notes that a running task has finished: the tasks that may start from now on."""
        place = self._place[id]
        assert place in self._running, f"{id} is not running"
        self._running.remove(place)
        self._left -= 1
        for later in self._waiting[place]:
            self._blockers[later] -= 1
        return self._starting(later for later in self._waiting[place] if not self._blockers[later])

    def stuck(self) -> tuple[Task, ...]:
        """The tasks that can never start: nothing runs and each waits for one of the others."""
        if self._running or self.done or not self._started:
            return ()
        return tuple(task for task, count in zip(self._tasks, self._blockers, strict=True) if count)

    def _starting(self, places: Iterable[int]) -> tuple[Task, ...]:
        chosen = sorted(places)
        self._running.update(chosen)
        return tuple(self._tasks[place] for place in chosen)
