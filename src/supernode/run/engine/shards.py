"""Global tensors cut into the pieces of the chips, and put together again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from supernode.plan import Layout, Mesh


def scatter(whole: Tensor, layout: Layout, mesh: Mesh, pieces: Sequence[Tensor]) -> None:
    """Writes each chip's piece of `whole` into `pieces`, by rank."""
    for rank, piece in enumerate(pieces):
        for there, here in layout.boxes(tuple(whole.shape), mesh, rank):
            piece[here].copy_(whole[there])


def gather(shape: tuple[int, ...], layout: Layout, mesh: Mesh, pieces: Sequence[Tensor]) -> Tensor:
    """The global tensor of `shape` whose pieces, by rank, are `pieces`; always a new one.

    Of pieces that several chips hold alike, the lowest rank's counts.
    """
    holders = layout.holders(mesh)
    if not layout.split_axes:
        return pieces[holders[0]].clone()
    whole = torch.empty(shape, dtype=pieces[0].dtype)
    seen: set[str] = set()
    for rank in holders:
        boxes = list(layout.boxes(shape, mesh, rank))
        if str(boxes) not in seen:
            seen.add(str(boxes))
            for there, here in boxes:
                whole[there] = pieces[rank][here]
    return whole
