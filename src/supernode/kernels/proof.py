"""Is the formula of a kernel true? Found out by running it in parts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from supernode.errors import InputError
from supernode.kernels.signature import Signature
from supernode.ops import Dims

_CLOSE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""How far parts may be from the whole, in parts of its largest element: sums are reordered."""
_COMBINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mean": lambda a, b: (a + b) / 2,
    "max": torch.maximum,
    "min": torch.minimum,
}


def prove(run: Callable[..., Any], known: Signature, args: Sequence[Any]) -> list[str]:
    """Runs the kernel whole, and in two parts along each factor; gives those that were split.

    Raises:
        InputError: the parts of a factor do not give the whole.
    """
    count = len(known.tensors)
    tensors, rest = tuple(args[:count]), tuple(args[count:])
    sizes = known.sizes(tuple(tuple(each.shape) for each in tensors))
    whole = _listed(run(*tensors, *rest))
    formula = known.of_tensors(sizes)
    split = [name for name, size in sizes.items() if size % 2 == 0 and formula.splittable(name)]
    for factor in split:
        parts = [
            _listed(run(*(_half(t, d, factor, i) for t, d in _pairs(known, tensors)), *rest))
            for i in (0, 1)
        ]
        for number, dims in enumerate(known.outputs):
            joined = _joined(known, factor, dims, parts[0][number], parts[1][number])
            if not _alike(joined, whole[number]):
                raise InputError(
                    f"the formula {known.text!r} of {known.name} is wrong: parts of {factor} do "
                    f"not give the whole of output {number}",
                    fix=f"whole={' '.join(sorted({*known.whole, factor}))!r}, or mend the formula",
                )
    return split


def _pairs(known: Signature, tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, Dims]]:
    return list(zip(tensors, known.inputs, strict=True))


def _half(tensor: Tensor, dims: Dims, factor: str, which: int) -> Tensor:
    for i, dim in enumerate(dims):
        if factor in dim:
            return tensor.chunk(2, i)[which]
    return tensor


def _joined(known: Signature, factor: str, dims: Dims, first: Tensor, second: Tensor) -> Tensor:
    for i, dim in enumerate(dims):
        if factor in dim:
            return torch.cat((first, second), i)
    return _COMBINED[known.reduced.get(factor, "sum")](first, second)


def _alike(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    if wanted.dtype not in _CLOSE:
        return torch.equal(found, wanted)
    scale = wanted.double().abs().max().item() if wanted.numel() else 0.0
    away = (found.double() - wanted.double()).abs()
    return bool((away <= _CLOSE[wanted.dtype] * scale).all())


def _listed(out: Any) -> list[Tensor]:
    return list(out) if isinstance(out, tuple | list) else [out]
