"""A chip's piece of a tensor, as stretches of the whole tensor's elements in their order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supernode.kernels.surroundings import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """`shape` is that of the piece; it holds `run` elements from each of `starts` (int64) on.

    Both count elements of the whole tensor, in row-major order.
    """

    shape: tuple[int, ...]
    starts: Tensor
    run: int


def piece_of(
    shape: Sequence[int],
    cuts: Sequence[Sequence[str]],
    grid: Grid,
    rank: int,
    part: int = 0,
    device: str = "cpu",
) -> Piece:
    """The piece that `rank` has of a tensor of `shape`, whose dims are cut so.

    `part` is that of a cut by time.
    """
    found = [grid.ranges(size, each, rank, part) for size, each in zip(shape, cuts, strict=True)]
    local = tuple(sum(map(len, ranges)) for ranges in found)
    # Behind the last dim that is cut, elements follow each other.
    last = max((i for i, each in enumerate(cuts) if each), default=-1)
    stride = run = math.prod(shape[last + 1 :])
    starts = torch.zeros(1, dtype=torch.int64)
    if last >= 0 and 0 not in local:
        longest = math.gcd(*map(len, found[last]))
        run *= longest
        found[last] = tuple(each[::longest] for each in found[last])
        for size, ranges in zip(
            reversed(shape[: last + 1]), reversed(found[: last + 1]), strict=True
        ):
            at = torch.tensor([i for each in ranges for i in each], dtype=torch.int64) * stride
            starts = (at.unsqueeze(1) + starts).flatten()
            stride *= size
    return Piece(local, starts.to(device), run)
