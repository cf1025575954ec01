"""Tensors in the arena of any chip of this host, by where they lie in it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supernode.run.fabric.arena import map_arena


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a tensor lies: the bytes before it in its arena, its shape and dtype name."""

    offset_bytes: int
    shape: tuple[int, ...]
    dtype: str


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


def spot_of(tensor: Tensor) -> Spot:
    """Where a tensor that `Fabric.empty` made lies."""
    return Spot(
        offset_bytes=int(tensor.storage_offset()) * tensor.itemsize,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
    )
