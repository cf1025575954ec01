"""A chip's room in the memory of its host, as the chip's process sees it."""

import math
import mmap
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.run.fabric.arena import map_arena

_ALIGN_BYTES = mmap.PAGESIZE
"""Each tensor has pages of its own, which a driver can lock by themselves."""


class HostRoom:
    """Gives out the memory of one of the `HostRooms`; it is mapped when it is first asked for."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._next = 0

    @cached_property
    def _memory(self) -> Tensor:
        return torch.frombuffer(map_arena(self._fd), dtype=torch.uint8)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor in this room.

        Raises:
            InputError: the room is full.
        """
        size = math.prod(shape) * dtype.itemsize
        start, end = self._next, self._next + size + -size % _ALIGN_BYTES
        if end > len(self._memory):
            raise InputError(
                f"the host has no room for {size} bytes more: {len(self._memory) - start} are left",
                fix="offload less, or use more hosts",
            )
        self._next = end
        return self._memory[start : start + size].view(dtype).view(tuple(shape))
