"""Crews: real processes, one a rank, that run programs of fabric calls sent by the test."""

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from supernode.run.fabric import ArenaSet
from supernode.units import MIB

WORKER = Path(__file__).with_name("crew_worker.py")
FABRICS = ("shared_memory",)
REPLY_S = 60.0

Step = tuple[str, tuple[Any, ...]]


class Crew:
    """`world` worker processes over one `ArenaSet`."""

    def __init__(self, kind: str, arenas: ArenaSet, world: int, deadline_s: float) -> None:
        self.kind, self.arenas, self.world, self.deadline_s = kind, arenas, world, deadline_s
        self.processes: list[subprocess.Popen[bytes]] = []
        self.connections: list[Connection] = []
        self.owes = False
        for rank in range(world):
            process, connection = self.worker(rank)
            self.processes.append(process)
            self.connections.append(connection)

    def worker(self, rank: int) -> tuple["subprocess.Popen[bytes]", Connection]:
        here, there = multiprocessing.Pipe()
        words = (self.kind, rank, self.deadline_s, there.fileno(), *self.arenas.fds)
        command = [sys.executable, str(WORKER), *map(str, words)]
        process = subprocess.Popen(command, pass_fds=(there.fileno(), *self.arenas.fds))
        there.close()
        return process, here

    def replace(self, rank: int) -> None:
        """A new process in the place of a dead one, over the same arenas."""
        self.connections[rank].close()
        self.processes[rank], self.connections[rank] = self.worker(rank)
        assert pickle.loads(self.connections[rank].recv_bytes()) == "ready"

    @property
    def is_idle(self) -> bool:
        """Every process lives and waits for a program."""
        return not self.owes and all(process.poll() is None for process in self.processes)

    def start(self, programs: list[list[Step]]) -> None:
        self.owes = True
        for connection, steps in zip(self.connections, programs, strict=True):
            connection.send_bytes(pickle.dumps(steps))

    def replies(self, within_s: float = REPLY_S) -> list[Any]:
        """What each rank sent back: its results or its error, or None from a dead one."""
        found: list[Any] = []
        for connection in self.connections:
            assert connection.poll(within_s), f"no reply in {within_s} s"
            try:
                found.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                found.append(None)
        self.owes = False
        return found

    def run(self, programs: list[list[Step]]) -> list[list[Any]]:
        """The results of every step of every rank; raises the first error of a rank."""
        self.start(programs)
        replies = self.replies()
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def same(self, step: Callable[[int], Step]) -> list[Any]:
        """The results, by rank, of one step made for each rank."""
        return [results[0] for results in self.run([[step(rank)] for rank in range(self.world)])]

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for connection in self.connections:
            connection.close()


@contextmanager
def started(
    kind: str, world: int, *, window_bytes: int = MIB, deadline_s: float = 30.0
) -> Iterator[Crew]:
    with ExitStack() as stack:
        arenas = stack.enter_context(ArenaSet.create(world, 2**28, window_bytes=window_bytes))
        crew = Crew(kind, arenas, world, deadline_s)
        stack.callback(crew.stop)
        assert crew.replies() == ["ready"] * world
        yield crew


class Standing:
    """A crew for many tests; after one that failed half-way, the next gets a new crew."""

    def __init__(self, kind: str, world: int, window_bytes: int = MIB) -> None:
        self._start = lambda: started(kind, world, window_bytes=window_bytes)
        self._stack = ExitStack()
        self._crew: Crew | None = None

    def crew(self) -> Crew:
        if self._crew is None or not self._crew.is_idle:
            self._stack.close()
            self._crew = self._stack.enter_context(self._start())
        return self._crew

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session", params=FABRICS)
def standing_pair(request: pytest.FixtureRequest) -> Iterator[Standing]:
    with closing(Standing(request.param, 2)) as standing:
        yield standing


@pytest.fixture(scope="session", params=FABRICS)
def standing_square(request: pytest.FixtureRequest) -> Iterator[Standing]:
    with closing(Standing(request.param, 4, 80 * 1024)) as standing:
        yield standing


@pytest.fixture
def pair(standing_pair: Standing) -> Crew:
    """Two ranks."""
    return standing_pair.crew()


@pytest.fixture
def square(standing_square: Standing) -> Crew:
    """Four ranks, with windows small enough that most tensors go through in chunks."""
    return standing_square.crew()


@pytest.fixture
def new_crew() -> Iterator[Callable[..., Crew]]:
    """Starts a crew for one test: `new_crew(world, deadline_s=...)`."""
    with ExitStack() as stack:
        yield lambda world, **options: stack.enter_context(
            started("shared_memory", world, **options)
        )
