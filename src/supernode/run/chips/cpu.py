"""Processor cores as chips: each worker process is one, with an equal share of the cores."""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from supernode.errors import DoesNotFit
from supernode.kernels import Clock, HostClock
from supernode.run.chips.allocations import Allocations
from supernode.run.chips.carrier import Carrier
from supernode.run.chips.chip import MemoryWatch
from supernode.run.chips.region import end_inheritance, region_environment
from supernode.run.fabric import Fabric
from supernode.units import GIB, KIB, format_bytes

# mallopt parameters of glibc (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_TRIM_THRESHOLD = 2**31 - 1

_THREADS = "OMP_NUM_THREADS"  # read by libraries that load before torch can be told
_TRITON = "TRITON_DEFAULT_BACKEND"
_PROFILER_LOG, _SILENT = "KINETO_LOG_LEVEL", "6"

WORKER_BYTES = 150e6
"""What an idle worker has for itself: measured as the private memory of a Python process that has
imported torch 2.13 (CPU build), 2026-11-24."""


class Cpu:
    """The cores this process may use, shared out evenly."""

    name = "cpu"
    state_in_arena = True

    def count(self) -> int:
        """One chip a core."""
        return len(os.sched_getaffinity(0))

    def check(self, chips: int) -> None:
        """More chips than cores take turns; more than there is memory for are refused.

        Raises:
            DoesNotFit: their processes alone would need more memory than is free.
        """
        need_bytes, free_bytes = chips * WORKER_BYTES, _free_bytes()
        if not 0 < need_bytes <= free_bytes:
            raise DoesNotFit(
                f"{chips} chips need {format_bytes(need_bytes)} of memory for their processes "
                f"alone, {format_bytes(free_bytes)} are free",
                asked=f"{chips} chips on this host",
                fix=f"use 1 to {int(free_bytes // WORKER_BYTES)} chips; "
                "simulate takes any number of them",
            )

    def environment(self, chips: int) -> dict[str, str]:
        """The number of threads: an even share of the cores, or fewer if this process has fewer.

        One chip so computes with the threads, and the bits, of plain PyTorch here. Triton is told
        that tensors are in the host's memory, also where there is a GPU. The allocator of tensors
        is one that keeps them close together. And torch's profiler, which measures memory, does
        not say on stderr that it begins and ends: what stands there are a worker's last words.
        """
        threads = min(self.count() // chips, torch.get_num_threads())
        return {
            _THREADS: str(max(1, threads)),
            _TRITON: "cpu",
            _PROFILER_LOG: _SILENT,
            **region_environment(),
        }

    def prepare(self, rank: int, chips: int) -> torch.device:
        """Keeps the threads to what the node has said, and freed memory in the process."""
        torch.set_num_threads(int(os.environ[_THREADS]))
        end_inheritance()
        keep_freed_memory()
        return torch.device("cpu")

    def links(self, shared: Fabric, chips: int) -> Fabric:
        """The shared memory itself."""
        return shared

    def state(self, home: Tensor) -> Tensor:
        """State lives in the arena, so that it outlives the process."""
        return home

    def pinned(self, room: Tensor) -> Tensor:
        """As it is."""
        return room

    def carrier(self, slots: Mapping[int, Tensor]) -> Carrier:
        """A thread that copies."""
        return Carrier(slots)

    def synchronize(self) -> None:
        """Nothing to wait for: a call returns when its work is done."""

    def clock(self) -> Clock:
        """The host's."""
        return HostClock()

    def memory_watch(self) -> MemoryWatch:
        """By torch's profiler."""
        return Allocations()


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed, so that a step does not fault its temporaries in anew.

    By default a block of 32 MiB or more goes back to the system when freed, and each of its pages
    is cleared again at the next use: three elementwise ops on 64 MiB each take 84 ms of processor
    time so, and 14 to 20 ms with this. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, GIB)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)


def _free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
