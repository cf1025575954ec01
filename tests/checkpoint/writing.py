"""A program that writes checkpoints and gets into trouble; the tests run it on its own.

`python writing.py FOLDER kill` dies by SIGKILL at every call that changes the disk, and at random
moments between; `full` has a disk that ends; `forbidden` has no rights. It prints what it saw.
"""

import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import torch

from supernode.checkpoint import Contents, newest, read, write
from supernode.errors import CheckpointError
from supernode.ir import TensorType

SIZE = 100_000
EXPECTED = {"w": TensorType("float32", (SIZE,)), "m": TensorType("float32", (SIZE,))}
_CHANGES = ("fsync", "mkdir", "rename", "rmdir", "unlink", "open")


def contents(done: int) -> Contents:
    """Of step `done`, by which every number of it can be told."""
    w = torch.full((SIZE,), float(done))
    state = {"w": w, "m": -w}
    return Contents(
        weights={"w": w}, state={"m": state["m"]}, numbers={}, host=b"", data=done, about={}
    )


def check(folder: Path) -> int:
    """The newest checkpoint is whole, and of the step it says: that step, 0 if there is none."""
    if newest(folder) is None:
        return 0
    checkpoint, found = read(folder, EXPECTED)
    assert found.data == checkpoint.done
    assert torch.equal(found.weights["w"], contents(checkpoint.done).weights["w"])
    assert torch.equal(found.state["m"], contents(checkpoint.done).state["m"])
    return checkpoint.done


def kill(folder: Path) -> None:
    moments, done = 0, 0
    while _killed(lambda at=moments: _write_until(folder, done + 1, at)):  # noqa: B023
        done = _not_lost(folder, done)
        moments += 1
    done = _not_lost(folder, done)
    rng = random.Random(0)
    for _ in range(20):
        pid = os.fork()
        if not pid:
            for number in range(done + 1, done + 1000):
                write(folder, number, contents(number), 2)
            os._exit(0)
        time.sleep(rng.uniform(0.0, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        done = _not_lost(folder, done)
    write(folder, done + 1, contents(done + 1), 2)
    print(json.dumps({"moments": moments, "left": sorted(os.listdir(folder))}))


def _write_until(folder: Path, number: int, calls: int) -> None:
    """Writes a checkpoint; dies before the change of the disk after `calls` of them."""
    left = calls

    def counted(change):
        def call(*args, **kwargs):
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return change(*args, **kwargs)

        return call

    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    write(folder, number, contents(number), 2)


def _killed(act) -> bool:
    pid = os.fork()
    if not pid:
        act()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _not_lost(folder: Path, done: int) -> int:
    now = check(folder)
    assert now >= done, f"step {done} was whole, now the newest is {now}"
    return now


def full(folder: Path) -> None:
    write(folder, 1, contents(1), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, resource.RLIM_INFINITY))
    _refused(folder)


def forbidden(folder: Path) -> None:
    write(folder, 1, contents(1), 2)
    os.chdir(folder)
    folder.chmod(0o555)
    (folder / ".lock").chmod(0o666)
    # Root, who may do everything, becomes nobody.
    ctypes.CDLL(None).setfsuid(65534)
    _refused(Path())
    ctypes.CDLL(None).setfsuid(os.getuid())
    folder.chmod(0o755)


def _refused(folder: Path) -> None:
    try:
        write(folder, 2, contents(2), 2)
    except CheckpointError as error:
        print(json.dumps({"error": str(error), "newest": check(folder)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"kill": kill, "full": full, "forbidden": forbidden}[sys.argv[2]](Path(sys.argv[1]))
