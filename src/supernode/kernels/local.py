"""`local.*` ops: what depends on where in the mesh a chip stands.

Each function gets the op's arguments as they stand in the Program, then the keywords
`coordinate` (mesh axis -> this chip's index) and `mesh`. Adding one is adding a row to `LOCAL`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from supernode.kernels.surroundings import Grid


def shard(x: Tensor, dim: int, axis: str, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """This chip's piece of `x`, cut evenly along `dim` over the mesh axis.

    It is contiguous: torch's layer norm backward on CPUs takes that for granted.
    """
    size = x.shape[dim] // mesh.axis_size(axis)
    return x.narrow(dim, coordinate[axis] * size, size).contiguous()


def embedding(
    weight: Tensor,
    ids: Tensor,
    axes: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Rows of the part `weight` of a table cut by rows; zeros for ids of other parts."""
    at, here = _within(ids, weight.shape[0], axes, coordinate, mesh)
    return torch.nn.functional.embedding(at, weight).masked_fill_(~here.unsqueeze(-1), 0)


def embedding_backward(
    grad: Tensor,
    ids: Tensor,
    rows: int,
    padding_idx: int,
    axes: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The gradient of this chip's `rows` of a table cut by rows."""
    at, here = _within(ids, rows, axes, coordinate, mesh)
    # What belongs elsewhere, or is padding, is added to one row more, which is then dropped.
    at = torch.where(here & (ids != padding_idx), at, rows)
    return torch.ops.aten.embedding_dense_backward(grad, at, rows + 1, -1, False)[:rows]


def pick(
    x: Tensor,
    index: Tensor,
    axes: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """`x[i, index[i]]` of the part `x` [n, v] of a matrix cut by columns; zero for others'."""
    at, here = _within(index, x.shape[1], axes, coordinate, mesh)
    # Not a product with `here`: what was picked instead may be infinite.
    return x.gather(1, at.unsqueeze(1)).squeeze(1).masked_fill_(~here, 0)


def unpick(
    values: Tensor,
    index: Tensor,
    columns: int,
    axes: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Zeros [n, columns] but for `values[i]` at column `index[i]`, where this chip has it."""
    at, here = _within(index, columns, axes, coordinate, mesh)
    out = values.new_zeros((values.shape[0], columns))
    return out.scatter_(1, at.unsqueeze(1), values.masked_fill(~here, 0).unsqueeze(1))


def _within(
    index: Tensor, size: int, axes: tuple[str, ...], coordinate: Mapping[str, int], mesh: Grid
) -> tuple[Tensor, Tensor]:
    """`index` relative to this chip's part, and where it lies in it (elsewhere it reads 0)."""
    part = 0
    for axis in axes:
        part = part * mesh.axis_size(axis) + coordinate[axis]
    at = index - part * size
    here = (at >= 0) & (at < size)
    return at.masked_fill(~here, 0), here


LOCAL: dict[str, Callable[..., Any]] = {
    "shard": shard,
    "embedding": embedding,
    "embedding_backward": embedding_backward,
    "pick": pick,
    "unpick": unpick,
}
"""The function of each `local.*` op, by the name behind the dot."""
