"""The queue of events of a simulation, in a total order."""

import heapq
from typing import NamedTuple


class Event(NamedTuple):
    """`task` ends at `time_s`.

    Events are compared from the left: by time, then priority (small first), then the order in
    which they were pushed. No two are equal, so the order never depends on the queue.
    """

    time_s: float
    priority: int
    sequence: int
    task: int


class EventQueue:
    """Events in, the earliest out."""

    def __init__(self) -> None:
        self._heap: list[Event] = []
        self._pushed = 0

    def push(self, time_s: float, priority: int, task: int) -> None:
        """Adds an event."""
        heapq.heappush(self._heap, Event(time_s, priority, self._pushed, task))
        self._pushed += 1

    def pop(self) -> Event:
        """Takes the first event out."""
        return heapq.heappop(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)
