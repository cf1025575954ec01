"""kill -9 amid steps of stages with layouts of their own: told, nothing left, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from sessions import left
from supernode.checkpoint import newest
from supernode.cli.main import call
from supernode.models import recipe

LAYOUT = "pp=1/dp=2,micro=2,offload=optimizer"
RUN = "import sys; from supernode.cli import main; main(sys.argv[1:])"
WITHIN_S = 120
Capture = pytest.CaptureFixture[str]


class Run:
    """A run that trains on and on, in a process of its own."""

    def __init__(self, folder: Path, log: Path, *more: str) -> None:
        options = ("--layout", LAYOUT, "--steps", "100000", "--sample", "0", *more)
        kept = ("--checkpoint", str(folder), "--every", "1")
        argv = [sys.executable, "-c", RUN, "run", "gpt-tiny", *options, *kept]
        self.folder, self.log = folder, log
        with log.open("w") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)

    def killed(self, who: str, after: int) -> list[int]:
        """Kills a chip or the run itself once there is a checkpoint of step `after`; all pids."""
        end_s = time.monotonic() + WITHIN_S
        try:
            while (newest(self.folder) or 0) < after:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end_s, self.log.read_text()
                time.sleep(0.01)
            pid = self.process.pid
            chips = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pids = [pid, *map(int, chips)]
            os.kill(pids[-1] if who == "a chip" else pid, signal.SIGKILL)
            self.process.wait(WITHIN_S)
        finally:
            self.process.kill()
            self.process.wait()
        return pids


@pytest.mark.zoo
def test_kills_are_told_leave_nothing_and_other_chips_go_on(tmp_path: Path, capfd: Capture) -> None:
    folder, log, done = tmp_path / "kept", tmp_path / "log", 0
    for who, more in (("a chip", ()), ("the run", ("--resume",))):
        run = Run(folder, log, *more)
        pids = run.killed(who, done + 2)
        assert len(pids) >= 4
        if who == "a chip":
            told = log.read_text()
            assert run.process.returncode == 1, told
            assert "was ended by SIGKILL" in told
            assert "last words" not in told
            assert "Traceback" not in told
        end_s = time.monotonic() + WITHIN_S
        while still := left(run.process.pid):
            assert time.monotonic() < end_s, still
            time.sleep(0.01)
        done = newest(folder) or 0
    argv = ["run", "gpt-tiny", "--layout", "tp=2", "--sample", "0", "--steps", str(done + 2)]
    code = call([*argv, "--checkpoint", str(folder), "--resume", "--json"])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert json.loads(out)["losses"] == pytest.approx(plain_losses(done + 2)[-2:], rel=1e-5)
    assert not list(folder.glob(".partial*"))


def plain_losses(steps: int) -> list[float]:
    """Those of plain PyTorch that nobody has stopped."""
    job = recipe("gpt-tiny").build()
    return [float(job.step(*batch)) for batch in islice(job.batches(), steps)]
