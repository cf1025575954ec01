"""One worker process as its node sees it: how it is started, spoken to, and made to go away."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

from supernode.errors import ChipFailed
from supernode.run.chips import ChipKind
from supernode.run.engine.messages import Failed, Message

GRACE_S = 0.5
"""How long a process may take to end by itself."""
_KILLED_S = 10.0
"""How long a killed process may take to go: the kernel may be writing its memory to a disk."""
_TAIL_BYTES = 2000


class WorkerProcess:
    """The process of one chip. Closing the pipe ends it; a stuck one is killed."""

    def __init__(
        self, rank: int, chips: int, kind: ChipKind, fds: tuple[int, ...], room: int
    ) -> None:
        self.rank = rank
        ours, theirs = socket.socketpair()
        # In memory, not a pipe: nobody needs to read along for the worker to be able to write.
        self._stderr = os.memfd_create(f"supernode-stderr-{rank}")
        handed = (theirs.fileno(), room, *fds)
        module = "supernode.run.engine.worker"
        command = [sys.executable, "-m", module, str(rank), str(chips), kind.name]
        with theirs:
            self._process = subprocess.Popen(
                [*command, *map(str, handed)],
                pass_fds=handed,
                stdin=subprocess.DEVNULL,
                stderr=self._stderr,
                env=_environment(kind, chips),
            )
        self.pidfd = os.pidfd_open(self._process.pid)
        self._pipe = Connection(ours.detach())
        self._closed = False
        self._outcome: Failed | None = None
        self._verdict = ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, message: Message) -> None:
        """Sends a message.

        Raises:
            ChipFailed: the process is gone.
        """
        try:
            self._pipe.send(message)
        except OSError:
            raise self.death() from None

    def receive(self) -> Message:
        """The answer to a command.

        Raises:
            SupernodeError: the chip failed, was stopped, or is gone; `outcome` says which.
        """
        try:
            message: Message = self._pipe.recv()
        except (EOFError, OSError):
            message = Failed(error=self.death(), own=True)
        if isinstance(message, Failed):
            self._outcome = message
            raise message.error
        return message

    def outcome(self, wait_s: float) -> Failed | None:
        """How a stopped command ended on this chip; None if it has not within `wait_s`."""
        outcome, self._outcome = self._outcome, None
        try:
            while outcome is None and self._pipe.poll(wait_s):
                message: Message = self._pipe.recv()
                outcome = message if isinstance(message, Failed) else None
        except (EOFError, OSError):
            outcome = Failed(error=self.death(), own=True)
        return outcome

    def death(self) -> ChipFailed:
        """The error for a process that ended without a word."""
        wrong = f"the process of chip {self.rank} {self.fate()}"
        if self._verdict:
            return ChipFailed(wrong, fix="connect(…, stuck_after_s=…) has more patience")
        tail = self._last_words()
        return ChipFailed(wrong + (f"; its last words:\n{tail}" if tail else ""))

    def put_down(self, why: str) -> None:
        """Kills the process because it stands still; `why` is told as its fate."""
        self._verdict = why
        self._process.kill()

    def fate(self) -> str:
        """How the process ended, in words."""
        # A process closes its pipe a moment before it has ended.
        try:
            status = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        if self._verdict:
            return f"({self.pid}) stood still and was ended: {self._verdict}"
        return (
            f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited ({status})"
        )

    def hang_up(self) -> None:
        """Closes the pipe, which ends the worker whatever it is doing."""
        if not self._pipe.closed:
            self._pipe.close()

    def close(self, grace_s: float = GRACE_S) -> None:
        """Ends the process, by force after `grace_s`, and frees what belongs to it.

        A second call does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self.hang_up()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends when the kernel lets it
                self._process.wait(_KILLED_S)
        os.close(self.pidfd)
        os.close(self._stderr)

    def _last_words(self) -> str:
        size = os.fstat(self._stderr).st_size
        tail = os.pread(self._stderr, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return tail.decode(errors="replace").strip()


def _environment(kind: ChipKind, chips: int) -> dict[str, str]:
    """This process's, and the way to the very packages it uses."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, **kind.environment(chips), "PYTHONPATH": path}
