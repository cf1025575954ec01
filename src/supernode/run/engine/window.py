"""Tensors in the arena of any chip of this host, by where they lie in it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supernode.run.fabric.arena import map_arena


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a tensor lies: the number of the arena, the bytes before it there, its shape and dtype
    name. Arenas are numbered as `Arenas` says."""

    arena: int
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Arenas:
    """The numbers of the arenas of `chips` chips: theirs, the node's, and those for each of them in
    the memory of the host."""

    chips: int

    @property
    def node(self) -> int:
        """The node's own."""
        return self.chips

    def host(self, rank: int) -> int:
        """The one on the host for chip `rank`."""
        return self.chips + 1 + rank


class Window:
    """One arena, mapped into this process."""

    def __init__(self, fd: int) -> None:
        self._memory = map_arena(fd)

    def tensor(self, spot: Spot) -> Tensor:
        """The tensor that lies at `spot`; writing it writes the arena."""
        dtype = getattr(torch, spot.dtype)
        count = math.prod(spot.shape)
        if not count:
            return torch.empty(spot.shape, dtype=dtype)
        flat = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=spot.offset_bytes)
        return flat.view(spot.shape)


def spot_of(tensor: Tensor, arena: int) -> Spot:
    """Where a tensor that `Fabric.empty` or `HostRoom.empty` made lies; they know the arena."""
    return Spot(
        arena=arena,
        offset_bytes=int(tensor.storage_offset()) * tensor.itemsize,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
    )
