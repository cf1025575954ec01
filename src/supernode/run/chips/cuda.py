"""NVIDIA GPUs as chips: worker `i` has GPU `i`; collectives by NCCL."""

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Self

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.kernels import Clock
from supernode.run.chips.chip import MemoryWatch
from supernode.run.fabric import Fabric


class Cuda:
    """The GPUs this process sees."""

    name = "cuda"
    state_in_arena = False

    def count(self) -> int:
        """One chip a GPU."""
        return torch.cuda.device_count()

    def check(self, chips: int) -> None:
        """As many as there are GPUs, at least one."""
        if not 0 < chips <= self.count():
            raise InputError(f"{chips} chips asked, this host has {self.count()} GPUs")

    def environment(self, chips: int) -> dict[str, str]:
        """Nothing: the device is chosen in `prepare`."""
        return {}

    def prepare(self, rank: int, chips: int) -> torch.device:
        """Makes GPU `rank` the current one."""
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        return device

    def links(self, shared: Fabric, chips: int) -> Fabric:
        """NCCL for the collectives, the host's arenas for the rest."""
        from supernode.run.fabric.nccl import NcclFabric

        return NcclFabric.attach(shared, chips)

    def state(self, home: Tensor) -> Tensor:
        """State lives in the GPU's memory."""
        return torch.empty_like(home, device="cuda")

    def pinned(self, room: Tensor) -> Tensor:
        """Locked in memory and known to the driver, so that copies do not hold up the host."""
        driver = torch.cuda.cudart()
        assert driver is not None
        torch.cuda.check_error(driver.cudaHostRegister(room.data_ptr(), room.nbytes, 0))
        return room

    def carrier(self, slots: Mapping[int, Tensor]) -> "CudaCarrier":
        """Streams that copy."""
        return CudaCarrier(slots)

    def synchronize(self) -> None:
        """Waits for the current stream's device."""
        torch.cuda.synchronize()

    def clock(self) -> Clock:
        """By events on the stream, which hold up nothing."""
        return _EventClock()

    def memory_watch(self) -> MemoryWatch:
        """By the counts that torch's allocator keeps."""
        return _Allocated()


class _EventClock:
    """A `Clock` whose first stamp waits for the GPU, to know the host's time then."""

    def __init__(self) -> None:
        self._start_ns = 0
        self._events: list[torch.cuda.Event] = []

    def stamp(self) -> None:
        if not self._events:
            torch.cuda.synchronize()
            self._start_ns = perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    @property
    def stamps_ns(self) -> list[int]:
        torch.cuda.synchronize()
        first = self._events[0]
        since_ms = [first.elapsed_time(event) for event in self._events]
        return [self._start_ns + round(ms * 1e6) for ms in since_ms]


class _Allocated:
    """A `MemoryWatch`: the allocator's own peak, begun anew at each mark."""

    def __init__(self) -> None:
        self._before = 0
        self.peaks: list[int] = []

    def __enter__(self) -> Self:
        self._before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def mark(self) -> None:
        self.peaks.append(torch.cuda.max_memory_allocated() - self._before)
        torch.cuda.reset_peak_memory_stats()


class CudaCarrier:
    """Copies between the GPU and pinned memory of the host, each way on a stream of its own, so
    that both copy engines work at one time; in order each way.

    The stream of a copy waits for what has been computed when it begins, and what is computed
    waits for it. So a slot that is stored to again has been read: by a copy that was waited for.
    """

    def __init__(self, slots: Mapping[int, Tensor]) -> None:
        self._slots = slots
        self._to_chip, self._from_chip = torch.cuda.Stream(), torch.cuda.Stream()
        self._begun: dict[int, torch.cuda.Event] = {}

    def begin(self) -> None:
        """Before a step: the last one has been waited for, whatever became of it."""
        self._begun.clear()

    def fetch(self, source: Tensor, key: int) -> Tensor:
        """See `kernels.surroundings.Places`."""
        out = torch.empty_like(source, device="cuda")
        self._start(self._to_chip, key, source, out)
        out.record_stream(self._to_chip)
        return out

    def store(self, x: Tensor, key: int, out: Tensor | None = None) -> Tensor:
        """See `kernels.surroundings.Places`."""
        if out is None:
            bytes_ = self._slots[key][: x.nbytes]
            out = torch.empty_like(x, device="meta")
            out = bytes_.view(x.dtype).as_strided(out.shape, out.stride())
        self._start(self._from_chip, key, x, out)
        x.record_stream(self._from_chip)
        return out

    def wait(self, key: int) -> None:
        """What is launched from here on runs when the copy is done."""
        torch.cuda.current_stream().wait_event(self._begun.pop(key))

    def _start(self, stream: torch.cuda.Stream, key: int, source: Tensor, out: Tensor) -> None:
        # What is copied may still be computed, and new memory still be read by what had it before.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            out.copy_(source, non_blocking=True)
        event = torch.cuda.Event()
        event.record(stream)
        self._begun[key] = event
