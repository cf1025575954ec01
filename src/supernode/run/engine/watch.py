"""A thread that notices when a worker dies or stands still, and stops the others."""

import math
import os
import select
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from supernode.run.engine.liveness import Stillness, vital_signs
from supernode.run.engine.process import WorkerProcess
from supernode.run.fabric import ArenaSet

_LOOK_S = 1.0
_LOOKS = 4
"""At least so many looks before a chip is said to stand still."""


class Watch:
    """Watches from its making until `close`; for standstill only while somebody waits."""

    def __init__(
        self, workers: Sequence[WorkerProcess], arenas: ArenaSet, stuck_after_s: float
    ) -> None:
        self._workers = tuple(workers)
        self._arenas = arenas
        self._stuck_after_s = stuck_after_s
        self._period_s = min(_LOOK_S, stuck_after_s / _LOOKS)
        self._waits_for: tuple[str] | None = None
        self._wake = os.eventfd(0)
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True, name="supernode-watch")
        self._thread.start()

    @contextmanager
    def waiting(self, what: str) -> Generator[None]:
        """While the node waits for every chip to do `what`; one that stands still is ended."""
        self._waits_for = (what,)  # a new object for each wait, by which the thread tells them
        try:
            yield
        finally:
            self._waits_for = None

    def close(self) -> None:
        """Ends the thread; from then on workers may end."""
        if self._over.is_set():
            return
        self._over.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        alive = {worker.pidfd: worker for worker in self._workers}
        for fd in alive:
            poll.register(fd, select.POLLIN)
        seen, stillness = None, self._stillness()
        while not self._over.is_set():
            ended = poll.poll(self._period_s * 1e3)
            for fd, _ in ended:
                worker = alive.pop(fd, None)
                if worker is not None and not self._over.is_set():
                    # The reason first: whoever waits for this chip wakes up with it.
                    self._arenas.abort(worker.rank, "its process ended")
                    poll.unregister(fd)
            waits = self._waits_for
            if waits is not seen:
                seen, stillness = waits, self._stillness()
            if waits is not None and not ended:
                self._look(stillness, waits[0])

    def _stillness(self) -> Stillness:
        looks = self._stuck_after_s / self._period_s
        return Stillness(math.ceil(looks) if math.isfinite(looks) else 2**63)

    def _look(self, stillness: Stillness, what: str) -> None:
        signs = [
            vital_signs(worker.pid, in_fabric=self._arenas.sleeps(worker.rank))
            for worker in self._workers
        ]
        verdict = stillness.look(signs)
        if verdict is None:
            return
        told = f"{verdict.how}, for {self._stuck_after_s:g} s while the node waited for {what}"
        if verdict.rank is None:
            self._arenas.abort(0, told)
        else:
            # Its end closes its pipe, so nobody waits for an answer either.
            self._workers[verdict.rank].put_down(told)
            self._arenas.abort(verdict.rank, told)
