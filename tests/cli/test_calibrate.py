"""`supernode calibrate`: a file that simulates, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessions import left
from supernode.calibrate import SUBJECTS, compared
from supernode.cli.calibrate import write_whole
from supernode.cli.main import BAD_INPUT, STOPPED, call
from supernode.errors import InputError
from supernode.machine import load_machine

ENTRY = "import sys; from supernode.cli import main; main(sys.argv[1:])"


@pytest.mark.slow
def test_this_host_becomes_a_machine_that_simulates_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "here.toml"
    assert call(["calibrate", "--chips", "2", "--quick", "--out", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert f"written to {path}" in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["here.toml"]
    machine = load_machine(path)
    assert (machine.chips, machine.name, machine.chip.overlaps) == (2, printed["machine"], False)
    assert set(printed["fits"]) == {*machine.chip.kernels, "host links"}
    assert {"matmul.float32", "attention.float32", "stream.any"} <= set(machine.chip.kernels)
    on = ["--on", str(path), "--layout", "dp=2"]
    assert call(["simulate", "gpt-tiny", *on, "--no-what-if", "--json"]) == 0
    step_s = json.loads(capsys.readouterr().out)["step_s"]
    assert 1e-4 < step_s < 1

    tiny = [subject for subject in SUBJECTS if subject.name == "llama-tiny"]
    one, two = compared(machine, tiny, steps=2, say=lambda _: None)
    assert (one.chips, two.chips, two.layout) == (1, 2, "dp=2")
    for each in (one, two):
        # How far off the times are is no test's: the host is busy with others. Memory is exact.
        assert each.predicted_bytes == pytest.approx(each.measured_bytes, rel=0.01)
        assert each.low_s < each.predicted_s < each.high_s
        assert each.measured_s > 0
        assert each.work_s >= 0
        assert each.ops["aten.mm"][0] > 0 < each.ops["aten.mm"][1]
    assert "fabric.all_reduce" in two.ops


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--out", "none/here.toml"], "there is no folder none"),
        (["--out", "."], "ends in .toml"),
        (["--out", "folder.toml"], "it is a folder"),
        (["--out", "here.txt"], "--out here.toml"),
        (["--out", "queue.toml"], "it is no file"),
        (["--out", "locked/here.toml"], "no permission"),
        (["--check", "none.toml"], "can't read it"),
        (["--check", "hgx-h100"], "is another machine"),
        (["--check", "hgx-h100", "--chips", "2"], "leave out --chips and --out"),
        (["--chips", "0"], ""),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    asked: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "locked").mkdir()
    os.mkfifo(tmp_path / "queue.toml")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *how: path.name != "locked" and real(path, *how))
    before = sorted(tmp_path.rglob("*"))
    assert call(["calibrate", *asked]) == BAD_INPUT
    err = capsys.readouterr().err
    assert said in err
    assert "measuring" not in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_can_not_be_written_keeps_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "here.toml"
    write_whole(path, "old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match="No space left"):
            write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_whole(path, "new")
    assert path.read_text() == "new"


@pytest.mark.slow
def test_ctrl_c_leaves_no_file_and_no_process(tmp_path: Path):
    command = [sys.executable, "-c", ENTRY, "calibrate", "--chips", "1", "--out", "here.toml"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("2/"):  # something is measured, much is not
                    break
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == STOPPED
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []
    end = time.monotonic() + 20
    while time.monotonic() < end and left(process.pid):
        time.sleep(0.05)
    assert not left(process.pid)
