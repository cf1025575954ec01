"""Checkpoints on disk: whole or not there, whatever happens meanwhile; damage is found."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import torch

from checkpoint.writing import EXPECTED, SIZE, check, contents
from supernode.checkpoint import Writer, check_room_for, checked_data, read, write
from supernode.errors import CheckpointError, InputError
from supernode.ir import HostType, TensorType

FILES = ("model.safetensors", "state.safetensors", "host.pt", "checkpoint.json")


def run(folder: Path, trouble: str) -> dict[str, object]:
    program = Path(__file__).parent / "writing.py"
    done = subprocess.run(
        [sys.executable, program, folder, trouble],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_whole_checkpoint(tmp_path: Path):
    saw = run(tmp_path, "kill")
    assert saw["moments"] > 15  # type: ignore[operator]
    names = saw["left"]
    assert isinstance(names, list)
    assert len([name for name in names if name.startswith("step-")]) == 2
    assert not [name for name in names if name.startswith(".partial")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "why"), [("full", "File too large"), ("forbidden", "Permission denied")]
)
def test_trouble_with_the_disk_is_told_and_leaves_the_last_one(
    trouble: str, why: str, tmp_path: Path
):
    saw = run(tmp_path, trouble)
    assert saw["newest"] == 1
    assert why in str(saw["error"])
    assert "the checkpoint of step 2 could not be written" in str(saw["error"])
    assert "go on from step 1, which is whole" in str(saw["error"])
    assert not list(tmp_path.glob(".partial*"))


def test_the_newest_are_kept(tmp_path: Path):
    for done in (1, 5, 9, 10):
        write(tmp_path, done, contents(done), 2)
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == [
        "step-00000009",
        "step-00000010",
    ]
    assert check(tmp_path) == 10
    assert read(tmp_path / "step-00000009", EXPECTED)[0].done == 9


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "changed", "removed"])
def test_damage_is_one_clear_error(name: str, how: str, tmp_path: Path):
    write(tmp_path, 7, replace(contents(7), host=b"something"), 2)
    file = tmp_path / "step-00000007" / name
    damage(file, how)
    with pytest.raises(CheckpointError, match="the checkpoint is damaged") as raised:
        check(tmp_path)
    assert name in str(raised.value)
    assert "remove step-00000007" in str(raised.value)


def damage(file: Path, how: str) -> None:
    held = bytearray(file.read_bytes())
    if how == "removed":
        file.unlink()
        return
    if how == "cut":
        del held[len(held) // 2 :]
    else:
        held[-3] ^= 1
    file.write_bytes(held)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "\x00\xff", '{"crc32": 3}'])
def test_a_manifest_that_is_none_is_damage(text: str, tmp_path: Path):
    write(tmp_path, 7, contents(7), 2)
    (tmp_path / "step-00000007" / "checkpoint.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        check(tmp_path)


def test_another_model_is_told_by_its_differences(tmp_path: Path):
    write(tmp_path, 7, contents(7), 2)
    other = {"w": TensorType("float32", (SIZE, 2)), "bias": EXPECTED["m"], "count": HostType()}
    with pytest.raises(CheckpointError) as raised:
        read(tmp_path, other)
    assert "of another model or optimizer: w is f32[100000], the step's is f32[100000, 2]; " in str(
        raised.value
    )
    assert "it has no bias; it has no count; and 1 more" in str(raised.value)
    with pytest.raises(CheckpointError, match=r"w is f32\[100000\], the step's is bf16\[100000\]"):
        read(tmp_path, {**EXPECTED, "w": TensorType("bfloat16", (SIZE,))})


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_where_there_is_none(folder: str, tmp_path: Path):
    (tmp_path / ".partial-step-00000003").mkdir()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read(tmp_path / folder, EXPECTED)


def test_a_longer_run_is_not_overwritten(tmp_path: Path):
    write(tmp_path, 7, contents(7), 2)
    check_room_for(tmp_path, 8)
    for done in (3, 7):
        with pytest.raises(CheckpointError, match="holds a checkpoint of step 7 already"):
            check_room_for(tmp_path, done)


def test_a_folder_that_can_not_be(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CheckpointError, match="can't be read: Not a directory"):
        check_room_for(file, 1)
    with pytest.raises(CheckpointError, match="can't be read: Not a directory"):
        check_room_for(file / "below", 1)


def test_two_processes_do_not_write_one_folder(tmp_path: Path):
    write(tmp_path, 1, contents(1), 2)
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is writing"):
            write(tmp_path, 2, contents(2), 2)
    write(tmp_path, 2, contents(2), 2)
    assert check(tmp_path) == 2


def test_numbers_and_data_come_back_as_they_were(tmp_path: Path):
    numbers = {"count": 0.1 + 0.2, "never": float("nan")}
    data = checked_data(1, 1, {"loader": [1, {"at": 2.5}], "name": "π"})
    write(tmp_path, 1, replace(contents(1), numbers=numbers, data=data), 1)
    expected = {**EXPECTED, "count": HostType(), "never": HostType()}
    checkpoint, found = read(tmp_path, expected)
    assert found.numbers["count"] == numbers["count"]
    assert found.numbers["never"] != found.numbers["never"]
    assert checkpoint.data == data


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: checked_data(1, 1, {1, 2}), "not JSON serializable"),
        (lambda: checked_data(-1, 1, None), "done = -1"),
        (lambda: checked_data(1, 0, None), "keep = 0"),
        (
            lambda: replace(contents(1), state={"z": torch.zeros(2, dtype=torch.complex128)}),
            "z is complex128",
        ),
    ],
)
def test_what_can_not_be_saved_is_refused(act: Callable[[], object], text: str):
    with pytest.raises(InputError, match=text):
        act()


def test_a_second_save_waits_for_the_first():
    writer, go, order = Writer(), Event(), []

    def first() -> None:
        assert go.wait(60)
        order.append("first")

    writer.start(first)
    writer.check()  # does not wait
    assert order == []
    go.set()
    writer.start(lambda: order.append("second"))
    assert order[0] == "first"
    writer.close()
    assert order == ["first", "second"]


@pytest.mark.parametrize("at", ["check", "start", "wait", "close"])
def test_trouble_in_the_thread_is_raised_once(at: str):
    writer, raised = Writer(), Event()

    def fails() -> None:
        raised.set()
        raise CheckpointError("no room")

    writer.start(fails)
    assert raised.wait(60)
    act = {"start": lambda: writer.start(list)}.get(at) or getattr(writer, at)
    sleep(0.1)  # until the thread has also said so
    with pytest.raises(CheckpointError, match="no room"):
        act()
    writer.wait()
