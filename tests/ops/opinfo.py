"""Torch's own sample inputs (OpInfo) as samples of our rows.

Each operator of torch's test database is called on its samples, forward and backward, and every
ATen call that this makes and that has a row is kept. So rows are tried on arguments that nobody
chose with them in mind: other ranks, broadcasts, keyword arguments, empty and odd shapes.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ops.calls import Sample, call
from supernode.ir.types import DTYPE_BYTES
from supernode.ops import table
from supernode.plan import Mesh

MESHES = (*(Mesh((("a", n),)) for n in (2, 3, 5)), Mesh((("a", 2), ("b", 2))))
"""Torch's shapes are made of 3, 5, 10 and 20: parts are equal for some and not for others."""

DTYPES = (torch.float32, torch.int64, torch.complex64)
"""An operator is called with the first of these that it knows."""

OUTSIDE = ("jiterator", "linalg", "sparse", "to_sparse", "signal", "masked.")
"""Prefixes of operators of the database that no row is about."""

DROPPED = ("device", "layout", "pin_memory", "non_blocking")
"""Keyword arguments that say nothing of what is computed."""

FORMATS = {torch.contiguous_format: "contiguous_format", torch.preserve_format: "preserve_format"}


Call = tuple[tuple[Any, ...], dict[str, Any]]


@cache
def calls(per_operator: int, per_row: int) -> dict[str, list[Sample]]:
    """Samples of each row by its name, no two alike, from some samples of each operator."""
    recorder = _Recorder(per_row)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

        for operator in op_db:
            known = [each for each in DTYPES if operator.supports_dtype(each, "cpu")]
            if known and not operator.name.startswith(OUTSIDE):
                _try(operator, known[0], per_operator, recorder)
        return {
            name: [call(name, *args, **kwargs) for args, kwargs in found.values()]
            for name, found in sorted(recorder.found.items())
        }


def _try(operator: Any, dtype: torch.dtype, count: int, recorder: "_Recorder") -> None:
    torch.manual_seed(0)
    differentiated = operator.supports_autograd and dtype.is_floating_point
    given = operator.sample_inputs("cpu", dtype, requires_grad=differentiated)
    samples = list(given)
    # Spread over all of them: later ones have more dims.
    for sample in samples[:: max(1, len(samples) // count)][:count]:
        with recorder:
            _run(operator, sample)


def _run(operator: Any, sample: Any) -> None:
    """Forward, and backward from random gradients where there are any."""
    out = operator(sample.input, *sample.args, **sample.kwargs)
    results = out if isinstance(out, list | tuple) else [out]
    ends = [x for x in results if isinstance(x, Tensor) and x.requires_grad]
    if ends:
        torch.autograd.backward(ends, [torch.randn_like(x) for x in ends])


UNINITIALISED = (
    "aten.empty.memory_format",
    "aten.empty_like",
    "aten.new_empty",
    "aten.new_empty_strided",
)
"""What they give is whatever the memory held, so there is nothing to compare; how often an operator
asks for some depends on what ran before it."""


class _Recorder(TorchDispatchMode):
    """Keeps the first calls of each row, with copies of what they were given, by what they say."""

    def __init__(self, per_row: int) -> None:
        super().__init__()
        self.per_row = per_row
        self.found: dict[str, dict[str, Call]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func).removesuffix(".default")
        if name in table() and name not in UNINITIALISED and _is_plain([*args, *kwargs.values()]):
            said = {key: x for key, x in kwargs.items() if key not in DROPPED}
            self._keep(name, args, said)
        return func(*args, **kwargs)

    def _keep(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept = self.found.setdefault(name, {})
        text = str([_described(arg) for arg in (*args, *kwargs.items())])
        if text not in kept and len(kept) < self.per_row:
            copies: dict[int, Tensor] = {}
            copied = {key: _copied(x, copies) for key, x in kwargs.items()}
            kept[text] = (tuple(_copied(x, copies) for x in args), copied)


def _described(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return arg.dtype, tuple(arg.shape)
    return [_described(x) for x in arg] if isinstance(arg, list | tuple) else arg


def _is_plain(args: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a Program can hold these: dense tensors, real numbers, words."""
    for arg in args:
        if isinstance(arg, list | tuple) and not _is_plain(arg):
            return False
        dtype = arg.dtype if isinstance(arg, Tensor) else arg
        if isinstance(dtype, torch.dtype) and str(dtype).removeprefix("torch.") not in DTYPE_BYTES:
            return False
        if isinstance(arg, Tensor) and arg.layout != torch.strided:
            return False
        if isinstance(arg, torch.memory_format) and arg not in FORMATS:
            return False
    return not any(isinstance(arg, complex | torch.Generator) for arg in args)


def _copied(arg: Any, copies: dict[int, Tensor]) -> Any:
    """The same argument, with tensors that no later op writes to; one stays one."""
    if isinstance(arg, Tensor):
        return copies.setdefault(id(arg), arg.detach().clone())
    if isinstance(arg, list | tuple):
        return [_copied(x, copies) for x in arg]
    return FORMATS[arg] if isinstance(arg, torch.memory_format) else arg
