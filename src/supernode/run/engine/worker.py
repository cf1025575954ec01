"""The process of one chip: waits for its doorbell, obeys, answers.

Started by `engine/process.py` as `python -m supernode.run.engine.worker RANK CHIPS KIND PIPE ROOM
FDS…`.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

# A Ctrl-C goes to the whole process group; the node alone decides what it means.
signal.signal(signal.SIGINT, signal.SIG_IGN)

import torch  # noqa: E402

from supernode.errors import ChipFailed, SupernodeError  # noqa: E402
from supernode.kernels import make  # noqa: E402
from supernode.run.chips import KINDS  # noqa: E402
from supernode.run.engine.doorbell import Command, Doorbell  # noqa: E402
from supernode.run.engine.messages import (  # noqa: E402
    Failed,
    Load,
    Message,
    Ready,
    Recover,
)
from supernode.run.engine.replica import Replica, Worksite  # noqa: E402
from supernode.run.engine.window import Arenas, Window  # noqa: E402
from supernode.run.fabric import FabricAborted, HostRoom, SharedMemoryFabric  # noqa: E402

_NO_DEADLINE_S = 1e9
"""The node watches over who stands still; how long another chip computes is no fault."""


class Worker:
    """One chip's process."""

    def __init__(
        self, rank: int, chips: int, kind: str, pipe: Connection, room: int, fds: list[int]
    ) -> None:
        self._rank = rank
        self._pipe = pipe
        self._mail: SimpleQueue[Message] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()
        chip = KINDS[kind]
        device = chip.prepare(rank, chips)
        shared = SharedMemoryFabric.attach(fds, rank, deadline_s=_NO_DEADLINE_S)
        self._shared = shared
        self._bell = Doorbell(shared, chips)
        self._replicas: dict[int, Replica] = {}
        self._site = Worksite(
            kind=chip,
            device=device,
            shared=shared,
            links=chip.links(shared, chips),
            node=Window(fds[1 + Arenas(chips).node]),
            room=HostRoom(room),
        )

    def run(self) -> None:
        """Obeys until the node goes away."""
        self._pipe.send(Ready())
        while True:
            try:
                command, plan, epoch = self._bell.next()
                self._obey(command, plan, epoch)
                self._bell.obeyed()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Says why, stops every chip, and waits until the node has cleared up."""
        known = error if isinstance(error, SupernodeError) else _unexpected(error)
        own = not isinstance(error, FabricAborted)
        if own:
            self._shared.abort(self._rank, known.wrong)
        # Last, because the node clears up when it has heard from every chip.
        self._pipe.send(Failed(error=known, own=own))
        while not isinstance(self._mail.get(), Recover):
            pass
        self._bell.reset()

    def _obey(self, command: Command, plan: int, epoch: int) -> None:
        match command:
            case Command.LOAD:
                load = self._mail.get()
                assert isinstance(load, Load)
                make(load.kernels)
                self._replicas[plan] = Replica(load, self._site)
                self._pipe.send(self._replicas[plan].loaded())
            case Command.STEP:
                self._replicas[plan].step(self._bell.number, epoch)
            case Command.TRACED_STEP:
                self._pipe.send(self._replicas[plan].traced_step(self._bell.number, epoch))
            case Command.TRACED_MEMORY:
                self._pipe.send(self._replicas[plan].traced_memory(self._bell.number, epoch))
            case Command.SAVE:
                self._replicas[plan].save(epoch)
            case Command.RESTORE:
                self._replicas[plan].restore(epoch)

    def _read(self) -> None:
        """Passes mail on; when the node is gone, so is the worker, whatever it is doing."""
        while True:
            try:
                self._mail.put(self._pipe.recv())
            except (EOFError, OSError):
                os._exit(0)


def _unexpected(error: Exception) -> ChipFailed:
    return ChipFailed(f"{type(error).__name__}: {error}")


def main(argv: list[str]) -> None:
    """Runs a worker until its node goes away."""
    rank, chips, kind, pipe, room, *fds = argv
    torch.set_grad_enabled(False)
    worker = Worker(
        int(rank), int(chips), kind, Connection(int(pipe)), int(room), list(map(int, fds))
    )
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1:])
