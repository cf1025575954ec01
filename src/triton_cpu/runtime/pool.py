"""The native thread pool (pool.ll), compiled at first use."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import ArgumentError
from . import codegen, host

STACK_BYTES = 256 << 20
"""Address space of a worker's stack; memory is used only as it is touched."""

CALLER_STACK_BYTES = 2 << 20
"""Programs with more scratch than this do not run on the calling thread."""

_SPINS, _LOOKS = 1500, 3000
"""How often an idle worker looks for work before it begins to give way to other threads, and before
it sleeps. From one launch to the next Python takes up to 100 µs, where the kernel's data have
displaced Python's from the caches; this is some 300 µs."""

LAUNCH_FORMAT = "Qq6i"
"""What `Pool.launch` is given, by `struct`: the kernel's address, the number of programs, the three
sizes of the grid, the threads, whether the calling thread only waits, 0; then the arguments."""


class Pool:
    """Native threads that run the programs of a launch."""

    def __init__(self) -> None:
        self._code = codegen.compile_ir(_source())
        address = self._code.address
        self.launch: Callable[[bytes], None] = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(
            address("pool_launch")
        )
        i32 = ctypes.c_int32
        self._grow = ctypes.CFUNCTYPE(i32, i32)(address("pool_grow"))
        self._reset = ctypes.CFUNCTYPE(None)(address("pool_reset"))
        self._reset()
        self.workers = 0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self._reset()
        self.workers = 0

    def ensure(self, workers: int) -> None:
        """Starts threads until there are that many besides the caller's."""
        if self.workers < workers:
            self.workers = int(self._grow(workers))


def _source() -> str:
    text = (Path(__file__).parent / "pool.ll").read_text()
    pause = f'call void asm sideeffect "{"pause" if host.is_x86() else "yield"}", ""()'
    detached = 2 if sys.platform == "darwin" else 1  # PTHREAD_CREATE_DETACHED
    values = {"PAUSE": pause, "SPINS": str(_SPINS), "LOOKS": str(_LOOKS), "STACK": str(STACK_BYTES)}
    for name, value in {**values, "DETACHED": str(detached)}.items():
        text = text.replace(f" {name}", f" {value}")
    return text


@functools.cache
def _pool() -> Pool:
    return Pool()


def pool() -> Pool:
    """The process's pool. There is never a second one: its threads run code the first one owns."""
    with host.LOCK:
        return _pool()


def asked_threads() -> int:
    """`TRITON_CPU_NUM_THREADS`; 0 if it isn't set."""
    given = os.environ.get("TRITON_CPU_NUM_THREADS", "")
    if given and not (given.isdecimal() and int(given)):
        raise ArgumentError(f"TRITON_CPU_NUM_THREADS is {given!r}, not a number of threads.")
    return int(given or 0)


def thread_count() -> int:
    """Threads of a launch of which nobody said how many: as many as torch uses, else all cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
