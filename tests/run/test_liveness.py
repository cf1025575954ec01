"""Who moves and who stands still, from what /proc tells."""

import os
import subprocess
import sys

from supernode.run.engine.liveness import Stillness, Verdict, VitalSigns, vital_signs


def signs(state: str, ticks: int = 0, *, in_fabric: bool = False) -> VitalSigns:
    return VitalSigns(state=state, cpu_ticks=ticks, in_fabric=in_fabric)


WAITS = signs("S", in_fabric=True)
STOPPED = Verdict(rank=1, how="stopped by a signal or a debugger")


def test_a_chip_at_work_may_keep_the_others_waiting_for_ever():
    stillness = Stillness(2)
    for ticks in range(100):
        assert stillness.look([WAITS, signs("S", ticks)]) is None
        assert stillness.look([WAITS, signs("R")]) is None


def test_a_stopped_chip_is_told_though_the_others_work():
    stillness = Stillness(2)
    assert stillness.look([signs("R"), signs("T")]) is None
    assert stillness.look([signs("R"), signs("t")]) == STOPPED


def test_a_chip_that_goes_on_in_time_is_forgiven():
    stillness = Stillness(2)
    for _ in range(10):
        assert stillness.look([WAITS, signs("T")]) is None
        assert stillness.look([WAITS, signs("R")]) is None


def test_when_nobody_moves_the_one_that_waits_for_no_other_is_to_blame():
    stillness = Stillness(2)
    for _ in range(2):
        assert stillness.look([WAITS, signs("S"), WAITS]) is None  # the first look sees ticks anew
    assert stillness.look([WAITS, signs("S"), WAITS]) == Verdict(
        rank=1, how="asleep, and not for another chip"
    )


def test_when_all_wait_for_each_other_nobody_is():
    stillness = Stillness(1)
    assert stillness.look([WAITS, WAITS]) is None
    assert stillness.look([WAITS, WAITS]) == Verdict(rank=None, how="every chip waits for another")


def test_the_signs_of_processes():
    own = vital_signs(os.getpid(), in_fabric=False)
    assert own.state == "R"
    assert own.cpu_ticks > 0
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert vital_signs(child.pid, in_fabric=True).is_stopped
        child.kill()
        child.wait(10)
        assert not vital_signs(child.pid, in_fabric=True).is_stopped
