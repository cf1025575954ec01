"""The processes that predict end with the command that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessions import left


@pytest.mark.slow
def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    code = "from supernode.cli import main; main(['accuracy', '--only', 'kor-0'])"
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stderr is not None
        assert "predicted before" in running.stderr.readline()
        until_s = time.monotonic() + 60
        while len(started := left(running.pid)) < 4:  # itself, two, multiprocessing's tracker
            assert time.monotonic() < until_s, started
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        running.stderr.close()
    until_s = time.monotonic() + 60
    while started := left(running.pid):
        assert time.monotonic() < until_s, f"{started} go on"
        time.sleep(0.05)
