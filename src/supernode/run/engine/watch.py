"""A thread that notices when a worker process dies, and stops the others."""

import os
import select
from collections.abc import Sequence
from threading import Event, Thread

from supernode.run.engine.process import WorkerProcess
from supernode.run.fabric import ArenaSet


class Watch:
    """Watches from its making until `close`."""

    def __init__(self, workers: Sequence[WorkerProcess], arenas: ArenaSet) -> None:
        self._workers = {worker.pidfd: worker for worker in workers}
        self._arenas = arenas
        self._wake = os.eventfd(0)
        self._over = Event()
        self._thread = Thread(target=self._run, daemon=True, name="supernode-watch")
        self._thread.start()

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
        for fd in (self._wake, *self._workers):
            poll.register(fd, select.POLLIN)
        while not self._over.is_set():
            for fd, _ in poll.poll():
                worker = self._workers.get(fd)
                if worker is not None and not self._over.is_set():
                    # The reason first: whoever waits for this chip wakes up with it.
                    self._arenas.abort(worker.rank, "its process ended")
                    poll.unregister(fd)
