"""A chip that raises, dies or is interrupted: told in words, no hang, nothing left behind."""

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from drawn import bernoulli
from run.plans import LARGE, f32, lookup_plan, one_op_plan, slow_plan
from supernode.errors import ChipFailed
from supernode.run import connect

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
START = {"random.step": torch.tensor(0)}
GOOD, BAD = torch.zeros(8, dtype=torch.int64), torch.tensor([0, 0, 0, 0, 0, 99, 0, 0])


def _until(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _fds() -> list[str]:
    """What every open descriptor refers to."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(links)


def _line(process: "subprocess.Popen[str]", within_s: float = 60.0) -> str:
    """The next line of what the process prints; it prints no more than one at a time."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], within_s)[0], f"silent for {within_s} s"
    return process.stdout.readline()


def _gone(pids: tuple[int, ...]) -> bool:
    """None of the processes is left, not even as a zombie."""
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_failed_op_names_chip_op_module_and_line_and_loses_nothing():
    with connect("cpu:2") as node:
        loaded = node.load(lookup_plan(2), {"w": torch.zeros(8, 8), **START})
        loaded.step({"x": GOOD})
        before = loaded.pull()["w"]
        start = time.monotonic()
        with pytest.raises(ChipFailed) as caught:
            loaded.step({"x": BAD})
        assert time.monotonic() - start < 1.0
        assert caught.value.wrong == "aten.embedding raised IndexError: index out of range in self"
        assert caught.value.where == "chip 1, model.py:7, in model.table, forward"
        assert caught.value.op.startswith("aten.embedding(f32[8, 8], i64[")
        assert caught.value.asked == "step toy on 2 chips, layout dp"
        assert torch.equal(loaded.pull()["w"], before)
        # The node goes on, and its random numbers are those of a run without the failure.
        loaded.step({"x": GOOD})
        noise = [bernoulli((8, 8), torch.float32, 0.5, 11, step, 0) for step in range(2)]
        assert torch.equal(loaded.pull()["w"], noise[0] + noise[1])


def test_a_load_that_fails_leaves_the_node_usable():
    with connect("cpu:2") as node:
        with pytest.raises(ChipFailed, match=r"no op 'aten\.nonsense'"):
            node.load(one_op_plan("aten.nonsense", (), f32(8), 2), {"s": torch.zeros(8)})
        loaded = node.load(one_op_plan("aten.neg", (), f32(8), 2), {"s": torch.zeros(8)})
        assert torch.equal(loaded.step({"x": torch.ones(8)})[0], -torch.ones(8))


def test_a_chip_killed_in_a_step_stops_the_others_within_a_second():
    gc.collect()
    fds = _fds()
    with connect("cpu:2") as node:
        pids = node.pids
        state = node.load(lookup_plan(2), {"w": torch.ones(8, 8), **START})
        loaded = node.load(slow_plan(2), {})
        killed_at: list[float] = []

        def kill() -> None:
            killed_at.append(time.monotonic())
            os.kill(pids[1], signal.SIGKILL)

        timer = threading.Timer(0.3, kill)
        timer.start()
        with pytest.raises(
            ChipFailed, match="the process of chip 1 was ended by SIGKILL"
        ) as caught:
            loaded.step({"x": torch.ones(LARGE)})
        assert caught.value.where == "chip 1; chip 0 was at model.py:7, in layer.7, forward"
        assert "fabric.all_reduce" in caught.value.op
        assert time.monotonic() - killed_at[0] < 1.0
        assert _gone(pids)
        assert torch.equal(state.pull()["w"], torch.ones(8, 8))
        with pytest.raises(ChipFailed, match="the node has lost a chip: the process of chip 1"):
            state.step({"x": GOOD})
        timer.join()
    assert _fds() == fds


def test_a_chip_killed_between_steps_is_missed_by_the_next():
    with connect("cpu:2") as node:
        loaded = node.load(lookup_plan(2), {"w": torch.ones(8, 8), **START})
        os.kill(node.pids[0], signal.SIGKILL)
        with pytest.raises(ChipFailed, match="the process of chip 0 was ended by SIGKILL"):
            _step_until_told(loaded)
        assert _gone(node.pids)


def _step_until_told(loaded) -> None:
    for _ in range(100):
        loaded.step({"x": GOOD})
        time.sleep(0.01)


def test_last_words_of_a_worker_that_can_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("supernode.run.chips.cpu.Cpu.name", "toaster")
    with pytest.raises(ChipFailed, match=r"(?s)exited \(1\); its last words:.*KeyError: 'toaster'"):
        connect("cpu:1")


SCRIPT = """
import os, pathlib, sys, torch
sys.path.insert(0, {tests!r})
from drawn import bernoulli
from run.plans import LARGE, slow_plan
from supernode.run import connect

node = connect("cpu:2")
loaded = node.load(slow_plan(2), {{}})
print(*node.pids, flush=True)
try:
    while True:
        loaded.step({{"x": torch.ones(LARGE)}})
except KeyboardInterrupt:
    alive = [pid for pid in node.pids if os.path.exists(f"/proc/{{pid}}")]
    node.close()
# Only now are the frames of the interrupt gone, and what they hold.
del node, loaded
lines = open("/proc/self/maps").read().splitlines()
fds = [os.readlink(fd) for fd in pathlib.Path("/proc/self/fd").iterdir() if fd.is_symlink()]
memory = sum("memfd:supernode" in each for each in lines + fds)
print(f"interrupted, alive: {{alive}}, memory: {{memory}}", flush=True)
"""


@contextlib.contextmanager
def _script():
    """A process of its own group, in the middle of a long step; with the pids of its workers."""
    text = textwrap.dedent(SCRIPT).format(tests=str(TESTS))
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        pids = tuple(map(int, _line(process).split()))
        time.sleep(0.3)
        try:
            yield process, pids
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_the_workers_and_reaches_the_caller():
    with _script() as (process, pids):
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert _line(process) == "interrupted, alive: [], memory: 0\n"
        assert time.monotonic() - start < 1.0
        assert process.wait(5) == 0
        assert _gone(pids)


def test_workers_of_a_killed_node_end_by_themselves():
    with _script() as (process, pids):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
        assert _until(lambda: _gone(pids), 10.0)


def test_a_node_that_nobody_closes_is_closed_at_exit():
    text = "from supernode.run import connect; node = connect('cpu:1'); print(*node.pids)"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert _gone(tuple(map(int, done.stdout.split())))


FORK = """
import os, sys, time, torch
from supernode.errors import InputError
from supernode.run import connect

if __name__ == "__main__":
    with connect("cpu:1") as node:
        child = os.fork()
        if not child:
            try:
                node.check_usable()
            except InputError as error:
                sys.exit(error.wrong != "the node belongs to another process")
            sys.exit("a forked child may use the node")
        assert os.waitpid(child, 0)[1] == 0
        start = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - start < 0.1, "something spins"
        assert node.alive
        assert os.path.exists(f"/proc/{node.pids[0]}")
        node.check_usable()
"""


def test_a_forked_child_that_exits_leaves_the_node_alone():
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


LIMITED = """
import resource
from supernode.errors import DoesNotFit
from supernode.run import connect

resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    connect("cpu:2")
except DoesNotFit as error:
    print(error)
"""


def test_shared_memory_that_cannot_be_had_is_told():
    command = [sys.executable, "-c", LIMITED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "of shared memory can be had: File too large" in done.stdout
