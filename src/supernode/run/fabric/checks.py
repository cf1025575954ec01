"""What a fabric asks of the tensors and groups it is given, before anything is sent.

All raise `InputError`.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.run.fabric.interface import Group
from supernode.run.fabric.library import DTYPES, OPS


def dim_of(x: Tensor, dim: int) -> int:
    """The place of `dim`, which may be counted from the end."""
    if not -x.ndim <= dim < x.ndim:
        raise InputError(f"dim {dim} of a tensor of shape {tuple(x.shape)}")
    return dim % x.ndim


def divided(x: Tensor, dim: int, count: int) -> tuple[int, ...]:
    """The shape of one of `count` equal pieces of `x` along `dim`."""
    size = x.shape[dim]
    if size % count:
        raise InputError(
            f"dim {dim} of shape {tuple(x.shape)} does not split into {count} equal pieces"
        )
    return (*x.shape[:dim], size // count, *x.shape[dim + 1 :])


def multiplied(shape: Sequence[int], dim: int, count: int) -> tuple[int, ...]:
    """The shape of `count` pieces of `shape` joined along `dim`."""
    return (*shape[:dim], shape[dim] * count, *shape[dim + 1 :])


def check_group(group: Group, rank: int, world: int) -> None:
    """That `group` is one that `rank` is in."""
    if rank not in group or len(set(group)) != len(group) or not set(group) <= set(range(world)):
        raise InputError(
            f"group {group}: must hold rank {rank}, and each of its ranks once, of 0 to {world - 1}"
        )


def check_on_host(tensors: Iterable[Tensor]) -> None:
    """That the tensors are in the memory of the host."""
    for x in tensors:
        if not x.is_cpu:
            raise InputError(f"a tensor on {x.device}", fix="this fabric moves host tensors")


def check_reduction(tensors: Iterable[Tensor], op: str) -> None:
    """That `op` is defined for the dtypes of `tensors`."""
    if op not in OPS:
        raise InputError(f"reduction {op!r}", fix=f"one of {', '.join(OPS)}")
    for x in tensors:
        if x.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise InputError(f"a reduction of {x.dtype}", fix=f"convert it to one of {known}")
        if x.dtype is torch.bool and op == "sum":
            raise InputError("a sum of torch.bool", fix="max is any, min is all")


def check_outputs(tensors: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """That results can be written to `out`."""
    check_on_host(out)
    for x, y in zip(tensors, out, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise InputError(
                f"out is {y.dtype}{list(y.shape)} for an input of {x.dtype}{list(x.shape)}"
            )
