"""What the stages of a pipeline send each other, and which tasks that comes from."""

from dataclasses import replace

from supernode.plan.progress import Task

Tasks = tuple[int, ...]


class Mail:
    """Messages by number: a stand-in for the tasks that a value waits for on another stage.

    Without `waits` each message is there from the start.
    """

    def __init__(self, *, waits: bool = True) -> None:
        self._waits = waits
        self._stands: dict[tuple[int, int], int] = {}
        self._sent: dict[int, Tasks] = {}

    def stand_in(self, stage: int, key: int) -> int:
        """The number, below zero, that stands for the message `key` to a stage."""
        return self._stands.setdefault((stage, key), -1 - len(self._stands))

    def send(self, stage: int, key: int, made: Tasks) -> None:
        """The message is there when these tasks have ended."""
        self._sent[self.stand_in(stage, key)] = made

    def delivered(self, task: Task) -> Task:
        """The task with those that its messages wait for; one may be passed on as it came."""
        deps = tuple(dep for dep in task.deps if isinstance(dep, int))
        if not deps or min(deps) >= 0:
            return task
        if not self._waits:
            return replace(task, deps=tuple(dep for dep in deps if dep >= 0))
        return replace(task, deps=self._resolved(deps))

    def _resolved(self, deps: Tasks) -> Tasks:
        found: set[int] = set()
        for dep in deps:
            found.update((dep,) if dep >= 0 else self._resolved(self._sent[dep]))
        return tuple(sorted(found))
