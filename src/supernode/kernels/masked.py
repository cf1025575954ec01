"""Elements written in order where a mask is, for the samples of one chip."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from supernode.kernels.surroundings import Grid

UNEQUAL = (
    "masked_scatter is split by samples, as its source has an entry for each, but the mask has "
    "more or fewer places in some of them; fix: a layout that does not split the batch"
)


def masked_scatter(
    x: Tensor,
    mask: Tensor,
    source: Tensor,
    starts: Tensor | None,
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """`x` with the elements of `source` in order where `mask` is.

    The first sample takes those from `starts[0]` on. Without `starts` the source is the samples'
    own: they must take all of it.
    """
    if starts is None:
        taken = mask.sum() * (x.numel() // mask.numel())
        torch.ops.aten._assert_async.msg(taken == source.numel(), UNEQUAL)
        return torch.ops.aten.masked_scatter(x, mask, source)
    return torch.ops.aten.masked_scatter(x, mask, source.flatten()[int(starts[0]) :])


def masked_scatter_backward(
    grad: Tensor,
    mask: Tensor,
    sizes: tuple[int, ...],
    starts: Tensor | None,
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The gradient of the source, of `sizes`: zeros where other samples take it."""
    taken = grad.masked_select(mask)
    start = 0 if starts is None else int(starts[0])
    out = grad.new_zeros(math.prod(sizes))
    out[start : start + len(taken)] = taken
    return out.view(sizes)
