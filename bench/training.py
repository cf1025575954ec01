"""Train steps on two chips beside torchrun: DDP, FSDP2 and a pipeline over gloo, same model, same
data."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import supernode as sn
from bench.host import cpu_s, descendants
from bench.result import Row, Section
from bench.rounds import QUIET_SHARE, Sized, TrainSteps, by_side, quiet_rounds, told
from supernode.models import recipe

HOW = f"""\
Both sides are alive at once and take turns: in each round each does the same number of steps while
the other sleeps (ours in a futex, theirs in a read of a socket). Ours is `node.compile(...)` over
`sn.connect("local:2")`, timed around whole calls that hand over the batch and give back the loss;
theirs is DDP, FSDP2 (`fully_shard` of each block and of the model) or
`torch.distributed.pipelining` (a stage a rank, 1F1B, cut and microbatches as ours) under `torchrun`
over gloo, timed inside the ranks, which have their part of the batch already and do not average the
loss.
Model, start, data, optimizer and clipping are the same, one thread a process. The optimizer is the
recipe's plain AdamW; `fused` is DDP with AdamW's fused kernel, for comparison. A ratio is their
time over ours in the same round, the table shows the median. A round in which other processes used
more than {QUIET_SHARE:.0%} of the cores is taken again. The losses of all steps must agree."""
LOSS_TOLERANCE = 2e-3
CHIPS = 2
NAMES = {"ddp": "DDP", "fsdp2": "FSDP2", "pipeline": "pipelining (1F1B)"}
START_S, ROUND_S, END_S = 180.0, 900.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Sized):
    """A recipe at one size on two chips, and how each side splits it."""

    layout: str
    torch: str
    fused: bool = False
    parts: int = 1

    @property
    def rival(self) -> str:
        """The other side's name."""
        return NAMES[self.torch] + (" with fused AdamW" if self.fused else "")


def cases(*, quick: bool = False) -> tuple[Case, ...]:
    """DDP, FSDP2 and 1F1B at each size."""
    large = Case(recipe="gpt-mini", batch=8, sequence=256, steps=2, layout="dp=2", torch="ddp")
    small = replace(large, batch=2, sequence=64, steps=8)
    tiny = replace(large, recipe="gpt-tiny", batch=2, sequence=16, steps=3)
    return tuple(
        case
        for size in ((tiny,) if quick else (large, small))
        for case in (
            size,
            replace(size, fused=True),
            replace(size, layout="fsdp=2", torch="fsdp2"),
            staged(size),
        )
    )


def staged(size: Case) -> Case:
    """Two stages with as many layers each."""
    parts, half = min(4, size.batch), 3 if size.recipe == "gpt-mini" else 1
    layout = f"pp=2,micro={parts},cut=blocks.{half}"
    return replace(size, layout=layout, torch="pipeline", parts=parts)


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
        before = descendants(os.getpid())
        self._node = sn.connect(f"local:{CHIPS}")
        self.pids = {os.getpid(), *(descendants(os.getpid()) - before)}
        step = self._node.compile(job.step, job.model, job.optimizer, layout=case.layout)
        self._steps = TrainSteps(job, step, case.steps)
        self.losses = self._steps.losses

    def __call__(self) -> float:
        """Runs a round; the seconds of a step."""
        return self._steps()

    def close(self) -> None:
        """Ends the chips."""
        self._node.close()


class Theirs:
    """The ranks under torchrun; each reads how many steps to do, answers with time and losses."""

    def __init__(self, case: Case) -> None:
        self._steps = case.steps
        self.losses: list[float] = []
        self._ranks: list[Connection] = []
        self._folder = tempfile.TemporaryDirectory()
        address = str(Path(self._folder.name) / "driver")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            listener.settimeout(START_S)
            self._process = _torchrun(case, address)
            try:
                for _ in range(CHIPS):
                    self._ranks.append(Connection(listener.accept()[0].detach()))
            except BaseException:
                self.close()
                raise
        self.pids = {self._process.pid, *descendants(self._process.pid)}

    def __call__(self) -> float:
        """Runs a round; the seconds of a step, of the slower rank."""
        for rank in self._ranks:
            rank.send(self._steps)
        answers = [self._answer(rank) for rank in self._ranks]
        # The parts of the batch are equal, so the mean of their losses is the loss of the whole.
        columns = zip(*(losses for _, losses in answers), strict=True)
        self.losses += [sum(column) / CHIPS for column in columns]
        return max(seconds for seconds, _ in answers) / self._steps

    def _answer(self, rank: Connection) -> tuple[float, list[float]]:
        if not rank.poll(ROUND_S):
            raise TimeoutError(f"a rank of {self._process.args!r} gave no answer in {ROUND_S} s")
        return rank.recv()

    def close(self) -> None:
        """Ends the ranks, which leave when their socket closes."""
        for rank in self._ranks:
            rank.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # torchrun ends its ranks
            self._process.wait(timeout=END_S)
        finally:
            self._folder.cleanup()


def _torchrun(case: Case, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={CHIPS}", "-m", "bench.torch_rank", address, case.torch]
    command += [
        case.recipe,
        str(case.batch),
        str(case.sequence),
        str(int(case.fused)),
        str(case.parts),
    ]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path})


def _row(case: Case, rounds: int, notes: list[str]) -> Row:
    idle: list[float] = []
    with closing(Ours(case)) as ours, closing(Theirs(case)) as theirs:
        for side in (ours, theirs):  # captures, compiles, makes buckets and optimizer state
            side()
        sides = {
            "ours": lambda: _watched(ours, theirs.pids, idle),
            "theirs": lambda: _watched(theirs, ours.pids, idle),
        }
        kept, taken = quiet_rounds(sides, rounds)
    times = by_side([each.times for each in kept])
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=LOSS_TOLERANCE, atol=0.0)
    notes.append(
        f"{case.size}, {case.rival} / {case.layout}: loss {ours.losses[0]:.4f} to "
        f"{ours.losses[-1]:.4f}, at most {_apart(ours.losses, theirs.losses):.1e} of it apart; the "
        f"side that slept used at most {max(idle):.1%} of a core; {told(kept, taken)}"
    )
    return Row(
        what=f"{case.size}: {case.rival} over gloo / {case.layout}",
        ours=times["ours"],
        theirs=times["theirs"],
        at_least=None if case.fused else 1.0,
        headline=f"train step on two chips against PyTorch {case.rival}, {case.size}",
    )


def _watched(side: Callable[[], float], sleeping: set[int], idle: list[float]) -> float:
    """A round of `side`; notes what share of a core the other side used meanwhile."""
    used_s, start_s = cpu_s(sleeping), time.monotonic()
    seconds = side()
    idle.append((cpu_s(sleeping) - used_s) / (time.monotonic() - start_s))
    return seconds


def _apart(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
