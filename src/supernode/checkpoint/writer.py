"""A thread that writes one checkpoint at a time, while steps go on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock


class Writer:
    """What goes wrong in the thread is raised once, at the next `check`, `start` or `wait`.

    Python waits for it before it ends.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="supernode-checkpoint")
        self._writing: Future[None] | None = None
        self._turn = Lock()

    def start(self, write: Callable[[], None]) -> None:
        """Starts `write` once the one before is done."""
        with self._turn:
            self._finish()
            self._writing = self._thread.submit(write)

    def check(self) -> None:
        """Raises what has gone wrong; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        with self._turn:
            self._finish()

    def close(self) -> None:
        """Waits, and ends the thread."""
        self._thread.shutdown()
        self.wait()

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
