"""The processes that predict end with the command that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and that live."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    code = "from supernode.cli import main; main(['accuracy', '--only', 'kor-0'])"
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "predicted before" in running.stderr.readline()
        until_s = time.monotonic() + 60
        while len(started := children(running.pid)) < 3:  # two, and multiprocessing's tracker
            assert time.monotonic() < until_s, f"{len(started)} processes"
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        running.stderr.close()
    until_s = time.monotonic() + 60
    while any(map(lives, started)):
        assert time.monotonic() < until_s, "processes go on"
        time.sleep(0.05)
