"""The allocator of the workers: blocks never overlap, and holes are used again."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from supernode.capture import capture
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import run_memory
from supernode.run import connect
from supernode.run.chips.region import region_environment


def grown_bytes(pid: int | str) -> int:
    """The memory of a process that is no file's."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def exercise() -> None:
    """What the test below runs in a process of its own: tensors come, grow and go at random."""
    draw = random.Random(0)
    live: list[torch.Tensor] = []
    before, most = grown_bytes("self"), 0
    for number in range(3000):
        if live and (len(live) > 60 or draw.random() < 0.45):
            gone = live.pop(draw.randrange(len(live)))
            assert (gone == int(gone[0])).all(), "another block was written here"
            continue
        size = draw.choice((100, 3000, 20_000, 300_000, 1_000_000))
        live.append(torch.full((size + draw.randrange(size),), number))
        most = max(most, sum(each.nbytes for each in live))
        assert live[-1].data_ptr() % 64 == 0
        if number % 10 == 0:
            last = live.pop()
            last.untyped_storage().resize_(2 * last.nbytes)
            assert (last == number).all()
    pid = os.fork()
    if not pid:
        torch.ones(100_000)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert "/region-" in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert grown_bytes("self") - before < 1.3 * most + 20e6


def test_blocks_keep_their_contents_and_lie_close_together() -> None:
    paths = os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **region_environment()}
    done = subprocess.run(
        [sys.executable, "-c", "from run.test_region import exercise; exercise()"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_user_s_own_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert region_environment()
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so")
    assert region_environment() == {}


@pytest.mark.slow
def test_a_chip_s_process_grows_by_what_is_planned() -> None:
    job = recipe("gpt-mini").build()
    captured = capture(job.step, job.model, job.optimizer, job.inputs)
    plan = partition(captured.program)
    with connect("cpu:1") as node:
        loaded = node.load(plan, captured.inputs())
        before = grown_bytes(node.pids[0])
        for _ in range(2):
            loaded.step(captured.bind(*job.inputs), captured.host_values())
        grown = grown_bytes(node.pids[0]) - before
    use = run_memory(plan.local)
    resident = ("parameters", "optimizer state", "inputs", "next epoch", "results")
    planned = use.peak_bytes - sum(use.parts[part] for part in resident)
    assert grown < 1.1 * planned + 30e6  # and code that is loaded at first use, buffers of MKL
