"""Sample ops: real calls with real tensors, written as the op of a Program would be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supernode.ir import Arg, DType, HostType, Op, TensorType, Type, Value
from supernode.kernels import LOCAL, RANDOM, piece_of
from supernode.kernels.handles import handle
from supernode.ops.random import piece_arguments
from supernode.plan import Mesh

ONE_CHIP = Mesh(())

_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """An op with what it is given and what it gives: one entry per value, in order."""

    op: Op
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def __str__(self) -> str:
        types = ", ".join(str(value.type) for value in self.op.inputs)
        constants = [str(arg) for arg in self.op.args if not _has_value(arg)]
        constants += [f"{key}={arg}" for key, arg in self.op.kwargs if not _has_value(arg)]
        return f"{self.op.name}({', '.join([types, *constants])})"


def call(name: str, *args: Any, **kwargs: Any) -> Sample:
    """The sample of one call; a `float` wrapped in `Host` becomes a number on the host."""
    values: dict[int, Value] = {}
    given: dict[int, Any] = {}

    def lower(arg: Any) -> Arg:
        if isinstance(arg, Tensor | Host):
            value = values.setdefault(id(arg), Value(len(values), _type(arg)))
            given[value.id] = arg.number if isinstance(arg, Host) else arg
            return value
        if isinstance(arg, torch.dtype):
            return DType(str(arg).removeprefix("torch."))
        return tuple(map(lower, arg)) if isinstance(arg, list | tuple) else arg

    op = Op(
        name=name,
        args=tuple(map(lower, args)),
        kwargs=tuple((key, lower(arg)) for key, arg in kwargs.items()),
        outputs=(),
    )
    inputs = tuple(given[value.id] for value in op.inputs)
    results = execute(op, inputs)
    outputs = tuple(Value(len(values) + i, _type(result)) for i, result in enumerate(results))
    return Sample(op=replace(op, outputs=outputs), inputs=inputs, outputs=results)


@dataclass(frozen=True, slots=True)
class Host:
    """A number on the host, as a learning rate is."""

    number: float


def _type(result: Any) -> Type:
    if isinstance(result, Host):
        return HostType()
    return TensorType(str(result.dtype).removeprefix("torch."), tuple(result.shape))


def _has_value(arg: Arg) -> bool:
    return isinstance(arg, Value) or (isinstance(arg, tuple) and any(map(_has_value, arg)))


def execute(
    op: Op,
    inputs: Sequence[Any],
    mesh: Mesh = ONE_CHIP,
    coordinate: Mapping[str, int] | None = None,
) -> tuple[Any, ...]:
    """The results of `op` on one chip of `mesh`, given one input per value in `op.inputs`.

    A result that was not asked for is left out, as capture does.
    """
    rest = iter(inputs)
    args = [_argument(arg, rest) for arg in op.args]
    kwargs = {key: _argument(arg, rest) for key, arg in op.kwargs}
    room, _, name = op.name.partition(".")
    if room == "local":
        out = LOCAL[name](*args, **kwargs, coordinate=coordinate or {}, mesh=mesh)
    elif room == "random":
        rank = sum(at * mesh.stride(axis) for axis, at in (coordinate or {}).items())
        args[3] = piece_of(*piece_arguments(op), mesh, rank)
        kwargs.pop("cuts", None)
        out = RANDOM[name](*args, **kwargs)
    else:
        out = handle(op.name).call(*args, **kwargs)
    return tuple(x for x in out if x is not None) if isinstance(out, tuple | list) else (out,)


def _argument(arg: Arg, inputs: Iterator[Any]) -> Any:
    if isinstance(arg, Value):
        return next(inputs)
    if isinstance(arg, DType):
        return getattr(torch, arg.name)
    if isinstance(arg, tuple):
        return [_argument(item, inputs) for item in arg]
    return _FORMATS.get(arg, arg) if isinstance(arg, str) else arg
