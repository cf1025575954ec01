"""NVIDIA GPUs as chips: worker `i` has GPU `i`; collectives by NCCL."""

from typing import Self

import torch
from torch import Tensor

from supernode.errors import InputError
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

    def synchronize(self) -> None:
        """Waits for the current stream's device."""
        torch.cuda.synchronize()

    def memory_watch(self) -> MemoryWatch:
        """By the counts that torch's allocator keeps."""
        return _Allocated()


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
