"""The shared memory of one host: a control segment, and one arena for each chip.

The parent makes them as nameless files (memfd) and its children inherit the descriptors, so the
kernel frees everything when the last process is gone, however it went.
"""

import contextlib
import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Sequence

from supernode.errors import DoesNotFit, InputError, SupernodeError
from supernode.run.fabric.library import native_library
from supernode.units import MIB, format_bytes

WINDOW_BYTES = MIB
"""Size of each of the two staging windows: a chunk of a large tensor that stays in the cache.

**Source:** measured, 2026-11, 2 ranks with 1 MiB of L2 each: of 128 KiB to 4 MiB, the fastest for
all-gather, reduce-scatter and all-to-all of 64 MiB; all-reduce varies little from 512 KiB on.
"""

MAX_CHIPS = 1024
_HEADER = struct.Struct("=QQ")  # world, window_bytes: the first fields of Header in meeting.h


class Control:
    """The control segment as one process sees it: the abort word, and the state of native calls.

    `rank` is the process's own, or `world` for the parent; `arenas` are the addresses at which
    this process has mapped them (none in the parent, which moves no data).
    """

    def __init__(
        self, fd: int, rank: int, arenas: Sequence[int] = (), deadline_s: float = 0.0
    ) -> None:
        self.memory = mmap.mmap(fd, 0)
        self.world, self.window_bytes = _HEADER.unpack_from(self.memory)
        self.deadline_s = deadline_s
        self.native = native_library()
        self.state = ctypes.create_string_buffer(self.native.sn_fabric_bytes(self.world))
        self.native.sn_attach(
            self.state,
            ctypes.addressof(ctypes.c_char.from_buffer(self.memory)),
            (ctypes.c_void_p * len(arenas))(*arenas) if arenas else None,
            self.world,
            rank,
            self.world > len(os.sched_getaffinity(0)),
            int(deadline_s * 1e9),
        )

    def abort(self, rank: int, reason: str) -> None:
        """Stops every rank, with `rank` to blame; only the first call counts."""
        self.native.sn_abort(self.state, rank, reason.encode())

    def sleeps(self, rank: int) -> bool:
        """Whether `rank` sleeps in a wait."""
        return bool(self.native.sn_sleeps(self.state, rank))

    def aborted(self) -> str | None:
        """Who stopped the run and why, or None while it goes on."""
        blamed = ctypes.c_int32()
        reason = self.native.sn_abort_reason(self.state, ctypes.byref(blamed))
        return None if reason is None else f"rank {blamed.value}: {reason.decode(errors='replace')}"


class ArenaSet:
    """The shared memory of a host's chips, made by the parent of their processes."""

    def __init__(self, fds: tuple[int, ...], arena_bytes: int) -> None:
        self.fds = fds
        self.arena_bytes = arena_bytes
        self._control = Control(fds[0], len(fds) - 1)

    @classmethod
    def create(
        cls, chips: int, arena_bytes: int | None = None, *, window_bytes: int = WINDOW_BYTES
    ) -> "ArenaSet":
        """An arena of `arena_bytes` (by default the host's memory) for each of `chips` chips.

        Pages that nobody touches cost nothing. Pass `fds` to the children
        (`subprocess.Popen(..., pass_fds=arenas.fds)`), and there to `SharedMemoryFabric.attach`.
        """
        if sys.platform != "linux":
            raise SupernodeError("the shared-memory fabric needs Linux (memfd and futex)")
        if not 1 <= chips <= MAX_CHIPS:
            raise InputError(f"{chips} chips: a host may have 1 to {MAX_CHIPS}")
        if window_bytes % 64 or window_bytes < 64 * chips:
            raise InputError(
                f"window_bytes = {window_bytes}: must be a multiple of 64, "
                f"and 64 for each of {chips} chips"
            )
        if arena_bytes is None:
            arena_bytes = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        if arena_bytes < 2 * window_bytes:
            raise InputError(
                f"arena_bytes = {arena_bytes}: the two windows alone take {2 * window_bytes}"
            )
        control = _memory_file("supernode-control", native_library().sn_control_bytes(chips))
        os.pwrite(control, _HEADER.pack(chips, window_bytes), 0)
        arenas = [_memory_file(f"supernode-arena-{chip}", arena_bytes) for chip in range(chips)]
        return cls((control, *arenas), arena_bytes)

    def abort(self, rank: int, reason: str) -> None:
        """Makes every call of every rank raise `FabricAborted`, with `rank` to blame."""
        self._control.abort(rank, reason)

    def aborted(self) -> str | None:
        """Who stopped the run and why, or None while it goes on."""
        return self._control.aborted()

    def sleeps(self, rank: int) -> bool:
        """Whether `rank` sleeps in a call of its fabric, until somebody comes."""
        return self._control.sleeps(rank)

    def reset(self) -> None:
        """Makes the fabric as new after an abort, the arenas' contents kept.

        To be called while no rank is inside a call of its fabric.
        """
        memory = self._control.memory
        memory[_HEADER.size :] = bytes(len(memory) - _HEADER.size)

    def close(self) -> None:
        """Closes the parent's descriptors; children that are attached are not disturbed."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()

    def __enter__(self) -> "ArenaSet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HostRooms:
    """Memory of the host for what chips do not hold themselves: a nameless file for each chip.

    Pages that nobody touches cost nothing. The parent makes it; each child attaches its own room.
    """

    def __init__(self, chips: int) -> None:
        size_bytes = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self.fds = tuple(
            _memory_file(f"supernode-host-{chip}", size_bytes) for chip in range(chips)
        )

    def close(self) -> None:
        """Closes the parent's descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def map_arena(fd: int) -> mmap.mmap:
    """The arena behind `fd`, shared with every process that maps it, on huge pages if allowed."""
    try:
        memory = mmap.mmap(fd, 0)
    except OSError as error:
        raise _no_memory(error, os.fstat(fd).st_size) from error
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _memory_file(name: str, size_bytes: int) -> int:
    try:
        fd = os.memfd_create(name)
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise _no_memory(error, size_bytes) from error
    return fd


def _no_memory(error: OSError, size_bytes: int) -> DoesNotFit:
    return DoesNotFit(
        f"no {format_bytes(size_bytes)} of shared memory can be had: {error.strerror}",
        fix="use fewer chips, or raise the limits of this process (ulimit -v, -n and -f)",
    )
