"""A chip that stands still, or dies where no other would miss it: told, and nothing is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from run.plans import LARGE, f32, lookup_plan, one_op_plan, slow_plan
from supernode.errors import ChipFailed, InputError
from supernode.run import Node, connect

pytestmark = pytest.mark.slow

PATIENCE_S = 2.0
SOON_S = 10.0
"""Far less than for ever; the host may be busy."""
GOOD = torch.zeros(8, dtype=torch.int64)
STATE = {"s": torch.zeros(8)}


@contextmanager
def soon() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SOON_S


@pytest.fixture
def node() -> Iterator[Node]:
    with connect("cpu:2", stuck_after_s=PATIENCE_S) as node:
        yield node


def gone(pids: tuple[int, ...]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_stopped_chip_of_a_plan_without_collectives(node: Node):
    weights = node.load(lookup_plan(2), {"w": torch.ones(8, 8), "random.step": torch.tensor(0)})
    loaded = node.load(one_op_plan("aten.neg", (), f32(8), 2), STATE)
    pids = node.pids
    os.kill(pids[1], signal.SIGSTOP)
    with soon(), pytest.raises(ChipFailed) as caught:
        loaded.step({"x": torch.ones(8)})
    assert caught.value.wrong == (
        f"the process of chip 1 ({pids[1]}) stood still and was ended: stopped by a signal or a "
        "debugger, for 2 s while the node waited for its step"
    )
    assert caught.value.where == "chip 1"
    assert caught.value.fix == "connect(…, stuck_after_s=…) has more patience"
    assert gone(pids)
    assert torch.equal(weights.pull()["w"], torch.ones(8, 8))


def test_a_stopped_chip_is_missed_by_the_one_that_waits_for_it(node: Node):
    loaded = node.load(slow_plan(2), {})
    timer = threading.Timer(0.3, os.kill, (node.pids[0], signal.SIGSTOP))
    timer.start()
    with soon(), pytest.raises(ChipFailed, match="stopped by a signal or a debugger") as caught:
        loaded.step({"x": torch.ones(LARGE)})
    timer.join()
    # Where the host is busy, chip 1 does not come to say that it was at layer.7.
    assert caught.value.where.startswith("chip 0")
    assert gone(node.pids)


def test_a_stopped_chip_holds_no_plan_back_that_does_not_fit_into_its_pipe(node: Node):
    os.kill(node.pids[1], signal.SIGSTOP)
    with soon(), pytest.raises(ChipFailed, match="2 s while the node waited for it to load a plan"):
        node.load(slow_plan(2), {})


def test_a_chip_that_is_stopped_for_a_moment_only_is_waited_for(node: Node):
    loaded = node.load(one_op_plan("aten.neg", (), f32(8), 2), STATE)
    os.kill(node.pids[1], signal.SIGSTOP)
    timer = threading.Timer(PATIENCE_S / 2, os.kill, (node.pids[1], signal.SIGCONT))
    timer.start()
    assert torch.equal(loaded.step({"x": torch.ones(8)})[0], -torch.ones(8))
    timer.join()


def test_a_step_may_last_longer_than_a_chip_may_stand_still():
    with connect("cpu:2", stuck_after_s=0.1) as node:
        loaded = node.load(slow_plan(2), {})
        start = time.monotonic()
        assert torch.equal(loaded.step({"x": torch.ones(LARGE)})[0], torch.ones(LARGE))
        assert time.monotonic() - start > 0.1


def test_a_chip_may_finish_its_op_before_it_hears_that_another_failed(node: Node):
    """As if the op took longer than a chip that is waiting needs to leave."""
    loaded = node.load(lookup_plan(2), {"w": torch.ones(8, 8), "random.step": torch.tensor(0)})
    os.kill(node.pids[0], signal.SIGSTOP)
    timer = threading.Timer(0.5 * PATIENCE_S, os.kill, (node.pids[0], signal.SIGCONT))
    timer.start()
    with pytest.raises(ChipFailed, match="index out of range"):
        loaded.step({"x": torch.tensor([0, 0, 0, 0, 0, 99, 0, 0])})
    timer.join()
    assert node.alive
    loaded.step({"x": GOOD})


def test_chips_that_wait_for_each_other_are_told_and_go_on(
    node: Node, monkeypatch: pytest.MonkeyPatch
):
    """As if a doorbell had not been heard."""
    loaded = node.load(lookup_plan(2), {"w": torch.ones(8, 8), "random.step": torch.tensor(0)})
    signal_of = node._fabric.signal
    with monkeypatch.context() as patch:
        patch.setattr(node._fabric, "signal", lambda rank, *rest: rank or signal_of(rank, *rest))
        with soon(), pytest.raises(ChipFailed, match="every chip waits for another") as caught:
            loaded.step({"x": GOOD})
    assert caught.value.where.startswith("chip 0 was at ")
    loaded.step({"x": GOOD})


def test_a_chip_killed_in_a_plan_without_collectives():
    with connect("cpu:2") as node:
        loaded = node.load(one_op_plan("aten.neg", (), f32(8), 2), STATE)
        os.kill(node.pids[1], signal.SIGSTOP)  # so that it has not answered when it dies
        timer = threading.Timer(0.3, os.kill, (node.pids[1], signal.SIGKILL))
        timer.start()
        with soon(), pytest.raises(ChipFailed, match="chip 1 was ended by SIGKILL"):
            loaded.step({"x": torch.ones(8)})
        timer.join()
        assert gone(node.pids)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1])
def test_a_chip_killed_while_it_loads(after_s: float):
    with connect("cpu:2") as node:
        timer = threading.Timer(after_s, os.kill, (node.pids[0], signal.SIGKILL))
        timer.start()
        with soon(), pytest.raises(ChipFailed, match="process of chip 0 was ended by SIGKILL"):
            _load_until_told(node)
        timer.join()
        assert gone(node.pids)


def _load_until_told(node: Node) -> None:
    while True:
        node.load(one_op_plan("aten.neg", (), f32(8), 2), STATE)


def test_a_chip_that_dies_while_the_node_recovers_from_a_failed_op(
    monkeypatch: pytest.MonkeyPatch,
):
    """The reset that clears the failure must not clear the death with it."""
    with connect("cpu:2") as node:
        loaded = node.load(lookup_plan(2), {"w": torch.ones(8, 8), "random.step": torch.tensor(0)})
        reset = node._arenas.reset

        def reset_after_a_death() -> None:
            os.kill(node.pids[0], signal.SIGKILL)
            os.waitid(os.P_PID, node.pids[0], os.WEXITED | os.WNOWAIT)
            time.sleep(0.2)  # the watch has seen it
            reset()

        monkeypatch.setattr(node._arenas, "reset", reset_after_a_death)
        with pytest.raises(ChipFailed, match="index out of range"):
            loaded.step({"x": torch.full((8,), 99)})
        with soon(), pytest.raises(ChipFailed, match="the node has lost a chip"):
            loaded.step({"x": GOOD})
        assert torch.equal(loaded.pull()["w"], torch.ones(8, 8))


def test_a_patience_that_is_none_is_refused():
    with pytest.raises(InputError, match="stuck_after_s = 0: must be positive"):
        connect("cpu:1", stuck_after_s=0)
