"""`local.*` ops: what depends on where in the mesh a chip stands.

Each function gets the op's arguments as they stand in the Program, then the keywords
`coordinate` (mesh axis -> this chip's index) and `mesh`. Adding one is adding a row to `LOCAL`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from supernode.kernels.attention import attention, attention_backward
from supernode.kernels.masked import masked_scatter, masked_scatter_backward
from supernode.kernels.surroundings import Grid
from supernode.plan import share


def shard(
    x: Tensor,
    dim: int,
    axis: str,
    units: int = 0,
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """This chip's piece of `x`, cut along `dim` over the mesh axis; evenly, or in `units` units.

    It is contiguous: torch's layer norm backward on CPUs takes that for granted.
    """
    units = units or mesh.axis_size(axis)
    first, count = mesh.share(axis, units, coordinate)
    unit = x.shape[dim] // units
    return x.narrow(dim, first * unit, count * unit).contiguous()


def once(x: Tensor, axis: str, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """`x` on the first chip of a mesh axis and zeros on the others: the chips' parts of a sum."""
    first, _ = mesh.share(axis, mesh.axis_size(axis), coordinate)
    return torch.zeros_like(x) if first else x.clone()


def pad(
    x: Tensor,
    dim: int,
    counts: tuple[int, int],
    lengths: tuple[int, int],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The pieces of `x` along `dim`, `counts[0]` of `lengths[0]` and then `counts[1]` of the
    shorter `lengths[1]`, each as long as the longest; contiguous, as on chips that fill up."""
    (many, few), (most, least) = counts, lengths
    if not few:
        return x.contiguous()
    longer, shorter = x.split((many * most, few * least), dim)
    filled = shorter.unflatten(dim, (few, least))
    end = x.dim() - dim - 1
    filled = torch.constant_pad_nd(filled, (0, 0) * end + (0, most - least))
    return torch.cat((longer, filled.flatten(dim, dim + 1)), dim)


def unpad(
    x: Tensor,
    dim: int,
    counts: tuple[int, int],
    lengths: tuple[int, int],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The reverse of `pad`: pieces of one length, of which the last `counts[1]` lose their end."""
    (many, few), (most, least) = counts, lengths
    if not few:
        return x
    longer, filled = x.split((many * most, few * most), dim)
    shorter = filled.unflatten(dim, (few, most)).narrow(dim + 1, 0, least)
    return torch.cat((longer, shorter.flatten(dim, dim + 1)), dim)


def part(
    x: Tensor,
    dim: int,
    index: int,
    parts: int,
    units: int = 0,
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Piece `index` of `parts` of `x` along `dim`, equal ones or in `units` units: what is done at
    one time, not place.

    It is contiguous, as that of `shard`.
    """
    first, count = share(units or parts, parts, index)
    unit = x.shape[dim] // (units or parts)
    return x.narrow(dim, first * unit, count * unit).contiguous()


def embedding(
    weight: Tensor,
    ids: Tensor,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Rows of the part `weight` of a table cut by rows; zeros for ids of other parts."""
    at, here = _within(ids, weight.shape[0], cuts, coordinate, mesh)
    return torch.nn.functional.embedding(at, weight).masked_fill_(~here.unsqueeze(-1), 0)


def embedding_backward(
    grad: Tensor,
    ids: Tensor,
    rows: int,
    padding_idx: int,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The gradient of this chip's `rows` of a table cut by rows."""
    at, here = _within(ids, rows, cuts, coordinate, mesh)
    # What belongs elsewhere, or is padding, is added to one row more, which is then dropped.
    at = torch.where(here & (ids != padding_idx), at, rows)
    return torch.ops.aten.embedding_dense_backward(grad, at, rows + 1, -1, False)[:rows]


def pick(
    x: Tensor,
    index: Tensor,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """`x[i, index[i]]` of the part `x` [n, v] of a matrix cut by columns; zero for others'."""
    at, here = _within(index, x.shape[1], cuts, coordinate, mesh)
    # Not a product with `here`: what was picked instead may be infinite.
    return x.gather(1, at.unsqueeze(1)).squeeze(1).masked_fill_(~here, 0)


def unpick(
    values: Tensor,
    index: Tensor,
    columns: int,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Zeros [n, columns] but for `values[i]` at column `index[i]`, where this chip has it."""
    at, here = _within(index, columns, cuts, coordinate, mesh)
    out = values.new_zeros((values.shape[0], columns))
    return out.scatter_(1, at.unsqueeze(1), values.masked_fill(~here, 0).unsqueeze(1))


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float,
    cuts: tuple[str, ...],
    *,
    scale: float | None = None,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of this chip's queries `q` [b, h, s, e] over all keys and values."""
    end, mask = _seen(q, cuts, coordinate, mesh)
    return attention(q, k[:, :, :end], v[:, :, :end], dropout_p, False, attn_mask=mask, scale=scale)


def causal_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    cuts: tuple[str, ...],
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of this chip's queries, and its part of those of all keys and values."""
    assert attn_mask is None, "torch takes a mask or is_causal, not both"
    end, mask = _seen(q, cuts, coordinate, mesh)
    grad_q, grad_k, grad_v = attention_backward(
        grad,
        q,
        k[:, :, :end],
        v[:, :, :end],
        out,
        logsumexp,
        dropout_p,
        False,
        attn_mask=mask,
        scale=scale,
    )
    later = (0, 0, 0, k.shape[2] - end)
    return grad_q, torch.constant_pad_nd(grad_k, later), torch.constant_pad_nd(grad_v, later)


def _seen(
    q: Tensor, cuts: tuple[str, ...], coordinate: Mapping[str, int], mesh: Grid
) -> tuple[int, Tensor]:
    """Up to where the queries of this chip look, and which of those keys each may look at."""
    rows = q.shape[2]
    start = _start(rows, cuts, coordinate, mesh)
    mask = torch.full((rows, start + rows), -torch.inf, dtype=q.dtype, device=q.device)
    return start + rows, mask.triu_(start + 1)


def _start(size: int, cuts: tuple[str, ...], coordinate: Mapping[str, int], mesh: Grid) -> int:
    """Where this chip's part of a dim so cut begins, of which it has `size`."""
    before, here = mesh.span(cuts, coordinate)
    return before * size // here


def _within(
    index: Tensor, size: int, cuts: tuple[str, ...], coordinate: Mapping[str, int], mesh: Grid
) -> tuple[Tensor, Tensor]:
    """`index` relative to this chip's part, and where it lies in it (elsewhere it reads 0)."""
    at = index - _start(size, cuts, coordinate, mesh)
    here = (at >= 0) & (at < size)
    return at.masked_fill(~here, 0), here


def inverse_permutation(places: Tensor, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """`y` with `y[places[i]] = i`."""
    return torch.empty_like(places).scatter_(
        0, places, torch.arange(len(places), device=places.device)
    )


def group_sizes(ends: Tensor, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """How many rows each group has, from where the groups end."""
    return ends.diff(prepend=ends.new_zeros(1))


def peer_rows(
    counts: Tensor, theirs: Tensor, *, coordinate: Mapping[str, int], mesh: Grid
) -> Tensor:
    """How many rows go to each chip, and come from it: [2, chips], on the host.

    `counts` are the own rows for each expert, those of the first chip first; `theirs` those of each
    chip for the experts of this one.
    """
    chips, experts = len(theirs), len(counts)
    if experts % chips:
        there = torch.stack([part.sum() for part in counts.tensor_split(chips)])
    else:
        there = counts.view(chips, -1).sum(1)
    return torch.stack((there, theirs.sum(1))).cpu()


def group_ends(theirs: Tensor, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """Where the rows of each expert of this chip end, those of all chips together."""
    return theirs.sum(0).cumsum(0, dtype=theirs.dtype)


def expert_order(theirs: Tensor, *, coordinate: Mapping[str, int], mesh: Grid) -> Tensor:
    """The indices that put rows by expert which have come chip by chip, each chip's by expert."""
    chips, experts = theirs.shape
    expert = torch.arange(experts, device=theirs.device).repeat(chips)
    return expert.repeat_interleave(theirs.flatten()).argsort(stable=True)


def own_rows(
    x: Tensor,
    ends: Tensor,
    experts: int,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Of rows in the order of their experts, those of the `experts` of this chip; `ends` says where
    those of each of all experts end."""
    start, stop = _own_span(ends, experts, cuts, coordinate, mesh)
    return x[start:stop].clone()


def own_ends(
    ends: Tensor,
    experts: int,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """Where those of each of the `experts` of this chip end among its own rows."""
    first = _start(experts, cuts, coordinate, mesh)
    before = ends[first - 1] if first else ends.new_zeros(())
    return ends[first : first + experts] - before


def placed_rows(
    x: Tensor,
    ends: Tensor,
    rows: int,
    experts: int,
    cuts: tuple[str, ...],
    *,
    coordinate: Mapping[str, int],
    mesh: Grid,
) -> Tensor:
    """The reverse of `own_rows`: all `rows`, zeros where they are of other chips' experts."""
    start, stop = _own_span(ends, experts, cuts, coordinate, mesh)
    out = x.new_zeros((rows, *x.shape[1:]))
    out[start:stop] = x
    return out


def _own_span(
    ends: Tensor, experts: int, cuts: tuple[str, ...], coordinate: Mapping[str, int], mesh: Grid
) -> tuple[int, int]:
    first = _start(experts, cuts, coordinate, mesh)
    known = [0, *ends.tolist()]
    return known[first], known[first + experts]


def slice_backward(
    x: Tensor, size: int, dim: int, *bounds: int, coordinate: Mapping[str, int], mesh: Grid
) -> Tensor:
    """`x` in a slice of zeros, which have `size` along `dim` and else the shape of `x`."""
    shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
    return torch.ops.aten.slice_backward(x, shape, dim, *bounds)


LOCAL: dict[str, Callable[..., Any]] = {
    "shard": shard,
    "part": part,
    "once": once,
    "pad": pad,
    "unpad": unpad,
    "embedding": embedding,
    "embedding_backward": embedding_backward,
    "pick": pick,
    "unpick": unpick,
    "slice_backward": slice_backward,
    "causal_attention": causal_attention,
    "causal_attention_backward": causal_attention_backward,
    "masked_scatter": masked_scatter,
    "masked_scatter_backward": masked_scatter_backward,
    "inverse_permutation": inverse_permutation,
    "group_sizes": group_sizes,
    "peer_rows": peer_rows,
    "group_ends": group_ends,
    "expert_order": expert_order,
    "own_rows": own_rows,
    "own_ends": own_ends,
    "placed_rows": placed_rows,
}
"""The function of each `local.*` op, by the name behind the dot."""
