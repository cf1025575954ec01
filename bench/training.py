"""Train steps on two chips beside torchrun: DDP and FSDP2 over gloo, same model, same data."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import torch

import supernode as sn
from bench.host import cpu_s, descendants
from bench.result import Row, Section, alternate
from supernode.models import recipe

HOW = """\
Both sides are alive at once and take turns: in each round each does the same number of steps while
the other sleeps (ours in a futex, theirs in a read of a socket). Ours is `node.compile(...)` over
`sn.connect("local:2")`, timed around whole calls that hand over the batch and give back the loss;
theirs is DDP or FSDP2 (`fully_shard` of each block and of the model) under `torchrun` over gloo,
timed inside the ranks, which have their part of the batch already and do not average the loss.
Model, start, data, optimizer and clipping are the same, one thread a process. A ratio is their
time over ours in the same round, the table shows the median. The losses of all steps must agree."""
LOSS_TOLERANCE = 2e-3
CHIPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe at one size on two chips, how each side splits it, how many steps a round has."""

    recipe: str
    batch: int
    sequence: int
    steps: int
    layout: str
    torch: str


def cases(*, quick: bool = False) -> tuple[Case, ...]:
    """DDP and FSDP2 at each size."""
    sizes = [("gpt-tiny", 2, 16, 3)] if quick else [("gpt-mini", 8, 256, 2), ("gpt-mini", 2, 64, 8)]
    return tuple(
        Case(recipe=name, batch=batch, sequence=sequence, steps=steps, layout=layout, torch=theirs)
        for name, batch, sequence, steps in sizes
        for layout, theirs in (("dp=2", "ddp"), ("fsdp=2", "fsdp2"))
    )


def measure(*, quick: bool = False) -> Section:
    """Every case, ours beside theirs."""
    rounds = 2 if quick else 7
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    notes: list[str] = []
    try:
        rows = [_row(case, rounds, notes) for case in cases(quick=quick)]
    finally:
        torch.set_num_threads(threads)
    return Section(
        theme="training",
        title="Training on two chips beside torchrun",
        how=HOW,
        recipe={
            "cases": [asdict(case) for case in cases(quick=quick)],
            "rounds": rounds,
            "threads a process": 1,
            "training": {case.recipe: str(recipe(case.recipe).training) for case in cases()},
        },
        rows=tuple(rows),
        notes=tuple(notes),
    )


class Ours:
    """The step on a node of two chips."""

    def __init__(self, case: Case) -> None:
        job = recipe(case.recipe).build(case.batch, sequence=case.sequence)
        assert job.batches is not None, "the recipe has no data"
        self._batches, self._steps = job.batches(), case.steps
        before = descendants(os.getpid())
        self._node = sn.connect(f"local:{CHIPS}")
        self.pids = {os.getpid(), *(descendants(os.getpid()) - before)}
        self._step = self._node.compile(job.step, job.model, job.optimizer, layout=case.layout)
        self.losses: list[float] = []

    def __call__(self) -> float:
        """Runs a round; the seconds of a step."""
        batches = list(islice(self._batches, self._steps))
        start = time.perf_counter()
        losses = [self._step(*batch) for batch in batches]
        seconds = (time.perf_counter() - start) / self._steps
        self.losses += [float(loss) for loss in losses]
        return seconds

    def close(self) -> None:
        """Ends the chips."""
        self._node.close()


class Theirs:
    """The ranks under torchrun; each reads how many steps to do, answers with time and losses."""

    def __init__(self, case: Case) -> None:
        self._steps = case.steps
        self.losses: list[float] = []
        self._folder = tempfile.TemporaryDirectory()
        address = str(Path(self._folder.name) / "driver")
        with Listener(address, "AF_UNIX", backlog=CHIPS) as listener:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += [f"--nproc-per-node={CHIPS}", "-m", "bench.torch_rank", address, case.torch]
            command += [case.recipe, str(case.batch), str(case.sequence)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
            self._process = subprocess.Popen(command, env=environment)
            self._ranks: list[Connection] = [listener.accept() for _ in range(CHIPS)]
        self.pids = {self._process.pid, *descendants(self._process.pid)}

    def __call__(self) -> float:
        """Runs a round; the seconds of a step, of the slower rank."""
        for rank in self._ranks:
            rank.send(self._steps)
        answers: list[tuple[float, list[float]]] = [rank.recv() for rank in self._ranks]
        # The parts of the batch are equal, so the mean of their losses is the loss of the whole.
        columns = zip(*(losses for _, losses in answers), strict=True)
        self.losses += [sum(column) / CHIPS for column in columns]
        return max(seconds for seconds, _ in answers) / self._steps

    def close(self) -> None:
        """Ends the ranks, which leave when their socket closes."""
        for rank in self._ranks:
            rank.close()
        try:
            self._process.wait(timeout=30)
        finally:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()


def _row(case: Case, rounds: int, notes: list[str]) -> Row:
    ours = Ours(case)
    try:
        theirs = Theirs(case)
        try:
            for side in (ours, theirs):  # captures, compiles, makes buckets and optimizer state
                side()
            idle: list[float] = []
            times = alternate(
                {
                    "ours": lambda: _watched(ours, theirs.pids, idle),
                    "theirs": lambda: _watched(theirs, ours.pids, idle),
                },
                rounds,
            )
        finally:
            theirs.close()
    finally:
        ours.close()
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=LOSS_TOLERANCE, atol=0.0)
    size = f"{case.recipe}, {case.batch} x {case.sequence} tokens"
    name = case.torch.upper()
    notes.append(
        f"{size}, {case.layout}: loss {ours.losses[0]:.4f} to {ours.losses[-1]:.4f}, at most "
        f"{_apart(ours.losses, theirs.losses):.1e} of it apart; the side that slept used at most "
        f"{max(idle):.1%} of a core"
    )
    return Row(
        what=f"{size}: {name} over gloo / {case.layout}",
        ours=times["ours"],
        theirs=times["theirs"],
        at_least=1.0,
        headline=f"train step on two chips against PyTorch {name}, {size}",
    )


def _watched(side: Callable[[], float], sleeping: set[int], idle: list[float]) -> float:
    """A round of `side`; notes what share of a core the other side used meanwhile."""
    used_s, start_s = cpu_s(sleeping), time.monotonic()
    seconds = side()
    idle.append((cpu_s(sleeping) - used_s) / (time.monotonic() - start_s))
    return seconds


def _apart(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def _path() -> str:
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
