"""`run --checkpoint --resume`: the same losses as if nothing had happened, and clear errors."""

import errno
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supernode.checkpoint import Contents, newest
from supernode.cli.main import call

write = importlib.import_module(
    "supernode.checkpoint.write"
)  # the room's name for it is a function
Capture = pytest.CaptureFixture[str]


def run(*options: object, capfd: Capture) -> list[float]:
    argv = ["run", "gpt-tiny", "--chips", "2", "--sample", "0", "--json", *map(str, options)]
    assert call(argv) == 0, capfd.readouterr().err
    document = json.loads(capfd.readouterr().out)
    return document["losses"]


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, capfd: Capture):
    whole = run("--steps", 6, capfd=capfd)
    first = run("--steps", 3, "--checkpoint", tmp_path, "--every", 2, "--keep", 1, capfd=capfd)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]
    options = ("--resume", "--checkpoint", tmp_path)
    assert first + run("--steps", 5, *options, capfd=capfd) == whole[:5]
    # On another layout: within rounding.
    (last,) = run("--steps", 6, *options, "--layout", "tp=2", capfd=capfd)
    assert last == pytest.approx(whole[5], rel=1e-5)


@pytest.mark.zoo
def test_kills_at_random_moments_lose_no_whole_checkpoint(tmp_path: Path, capfd: Capture):
    rng, folder, log = random.Random(1), tmp_path / "kept", tmp_path / "log"
    options = ["--chips", "2", "--every", "1", "--sample", "0", "--checkpoint", str(folder)]
    done = 0
    for number in range(3):
        argv = ["run", "gpt-tiny", "--steps", "100000", *options]
        if number:
            argv.append("--resume")
        told = _killed(argv, folder, log, done + 1, rng.uniform(0.0, 0.4))
        last = newest(folder)
        assert last is not None
        # What a line tells is done; of the step before it the checkpoint was being written.
        assert last >= max(done + 1, told - 2)
        done = last
    losses = run("--steps", done + 3, *options[2:], "--resume", capfd=capfd)
    assert losses == run("--steps", done + 3, capfd=capfd)[-3:]
    assert not list(folder.glob(".partial*"))


def _killed(argv: list[str], folder: Path, log: Path, until: int, later_s: float) -> int:
    """Runs until there is a checkpoint of step `until`, and a moment more; the last step told."""
    code = "import sys; from supernode.cli import main; main(sys.argv[1:])"
    with log.open("w") as err:
        process = subprocess.Popen([sys.executable, "-c", code, *argv], stderr=err)
    try:
        end_s = time.monotonic() + 120
        while (newest(folder) or 0) < until and process.poll() is None:
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.01)
        time.sleep(later_s)
        assert process.poll() is None, log.read_text()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return max(
        (int(step) for step in re.findall(r"^step (\d+)/", log.read_text(), re.M)), default=0
    )


@pytest.mark.slow
def test_a_full_disk_stops_the_run(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch):
    def full(partial: Path, done: int, contents: Contents) -> None:
        if done > 2:
            (partial / "model.safetensors").write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fill(partial, done, contents)

    fill = write._fill
    monkeypatch.setattr(write, "_fill", full)
    argv = ["run", "gpt-tiny", "--chips", "1", "--steps", "50", "--every", "2", "--sample", "0"]
    assert call([*argv, "--checkpoint", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "the checkpoint of step 4 could not be written: No space left on device" in err
    assert "go on from step 2, which is whole" in err
    assert "Traceback" not in err
    assert "step 50/50" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step-00000002"]


@pytest.mark.slow
def test_what_can_not_be_resumed_is_one_clear_error(tmp_path: Path, capfd: Capture):
    kept = tmp_path / "kept"
    run("--steps", 2, "--checkpoint", kept, capfd=capfd)
    damaged = tmp_path / "damaged"
    run("--steps", 2, "--checkpoint", damaged, capfd=capfd)
    file = damaged / "step-00000002" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    tiny = ["run", "gpt-tiny", "--chips", "1", "--sample", "0"]
    cases = (
        ([*tiny, "--resume"], "add --checkpoint FOLDER"),
        ([*tiny, "--checkpoint", str(tmp_path / "none"), "--resume"], "there is no checkpoint in"),
        ([*tiny, "--checkpoint", str(kept)], "add --resume to go on"),
        ([*tiny, "--checkpoint", str(kept), "--resume", "--steps", "2"], "give more --steps"),
        ([*tiny, "--checkpoint", str(kept), "--resume", "--batch", "4"], "trained on other data"),
        (
            ["run", "llama-tiny", "--chips", "1", "--checkpoint", str(kept), "--resume"],
            "of another model or optimizer",
        ),
        ([*tiny, "--checkpoint", str(damaged), "--resume"], "the checkpoint is damaged"),
        ([*tiny, "--checkpoint", str(file)], "can't be read: Not a directory"),
    )
    for argv, expected in cases:
        assert call(argv) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert expected in err
        assert "Traceback" not in err
        assert newest(kept) == 2
