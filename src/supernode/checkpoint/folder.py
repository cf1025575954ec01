"""A folder of checkpoints: `step-00000100/` and so on; names with a dot are unfinished."""

import fcntl
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from supernode.errors import CheckpointError

_NAME = re.compile(r"step-(\d{8,})")
_PARTIAL = ".partial-"
_LOCK = ".lock"


def path_of(folder: Path, done: int) -> Path:
    """Where the checkpoint after `done` steps lies once it is whole."""
    return folder / f"step-{done:08}"


def steps_in(folder: Path) -> list[int]:
    """After how many steps there are checkpoints, rising; none where there is no such folder.

    Raises:
        CheckpointError: the folder can't be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror}") from None
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def newest(folder: Path) -> int | None:
    """After how many steps the newest checkpoint was made, or None."""
    return max(steps_in(folder), default=None)


def check_room_for(folder: Path, done: int) -> None:
    """Makes the folder; raises if a checkpoint after `done` steps can't be its newest.

    Raises:
        CheckpointError: the folder holds this step or later ones, or can't be written.
    """
    last = newest(folder)
    if last is not None and last >= done:
        raise CheckpointError(
            f"{folder} holds a checkpoint of step {last} already",
            asked=f"save step {done}",
            fix="load it to go on from there, or save into another folder",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _open_lock(folder):
            pass
    except OSError as error:
        raise CheckpointError(
            f"{folder} can't be written: {error.strerror}",
            asked=f"save step {done}",
            fix="name a folder that you may write",
        ) from None


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Only one process writes a folder; what others left unfinished when they died is removed.

    Raises:
        CheckpointError: another process is writing.
    """
    with _open_lock(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is writing a checkpoint into {folder}",
                fix="give each run a folder of its own",
            ) from None
        for each in folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(each)
        yield


@contextmanager
def all_at_once(path: Path) -> Generator[Path]:
    """A folder to fill, which no reader looks at; when it is filled it becomes `path`.

    Or it goes, where filling it fails.
    """
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    partial.mkdir()
    try:
        yield partial
        sync(partial)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(path.parent)


def keep_newest(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep`; one that is half removed is no checkpoint any more."""
    for done in steps_in(folder)[:-keep]:
        path = path_of(folder, done)
        going = path.rename(folder / f"{_PARTIAL}{path.name}")
        shutil.rmtree(going)


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _open_lock(folder: Path) -> Generator[int]:
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)
