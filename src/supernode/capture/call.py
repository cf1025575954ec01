"""One call of an op as the recorder sees it, and its arguments as the Program has them."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernode.capture import compat
from supernode.capture.compat import OpOverload
from supernode.capture.functional import FIXED_SHAPE, OpInfo, reason
from supernode.capture.host import host_node
from supernode.capture.random import record_random
from supernode.capture.sites import user_line
from supernode.capture.tape import KwArgs
from supernode.capture.tensors import Tensors, dtype_of
from supernode.errors import CaptureError
from supernode.ir import Arg, Type, Value, short_dtype

_DROPPED = frozenset({"device", "layout", "pin_memory", "non_blocking", "generator"})


@dataclass(slots=True)
class Call:
    """An op with what it was called with. Ops run under `recording` are recorded themselves."""

    func: OpOverload
    info: OpInfo
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: Tensors
    recording: AbstractContextManager[Any]
    _replaced: bool = False

    def lowered(self) -> tuple[tuple[Arg, ...], KwArgs]:
        """The arguments as the Program has them; where things are is not among them."""
        if self.kwargs.get("generator") is not None:
            raise CaptureError(
                "a generator of its own draws the random numbers",
                where=user_line(),
                fix="use the default generator (torch.manual_seed)",
            )
        kwargs = tuple(
            (key, self._lower(arg))
            for key, arg in self.kwargs.items()
            if arg is not None and key not in _DROPPED
        )
        return tuple([self._lower(arg) for arg in self.args]), kwargs

    def _lower(self, arg: Any) -> Arg:
        if isinstance(arg, Tensor):
            if not isinstance(arg, compat.FakeTensor):
                self._replaced = True
            return self.tensors.value_of(arg)
        if arg is None or isinstance(arg, bool | int | float | str):
            return arg
        if isinstance(arg, list | tuple):
            return tuple([self._lower(item) for item in arg])
        node = host_node(arg)
        if node is not None:
            self._replaced = True
            return node.value
        if isinstance(arg, torch.dtype):
            return dtype_of(arg)
        if isinstance(arg, torch.memory_format):
            return str(arg).removeprefix("torch.")
        raise CaptureError(
            f"{self.info.name} takes an argument of type {type(arg).__name__}, which a Program "
            "has not",
            fix="write the step with ordinary (dense, strided) tensors",
        )

    def text(self) -> str:
        """The op with dtypes and shapes, as errors show it."""
        args = [_text(arg) for arg in self.args]
        args += [f"{key}={_text(arg)}" for key, arg in self.kwargs.items() if key not in _DROPPED]
        return f"{self.info.name}({', '.join(args)})"

    def faked(self, arg: Any) -> Any:
        """`arg` with fakes for real tensors, and any number for one that is known later."""
        if isinstance(arg, Tensor):
            return self.tensors.fake_of(arg)
        if isinstance(arg, list | tuple):
            return [self.faked(item) for item in arg]
        return 0.5 if isinstance(arg, torch.SymFloat) else arg

    def run(self, func: OpOverload | None = None) -> Any:
        """The op, or `func` with its arguments, on fakes; after `lowered`."""
        func = func or self.func
        if not self._replaced:
            return func(*self.args, **self.kwargs)
        args = [self.faked(arg) for arg in self.args]
        return func(*args, **{key: self.faked(arg) for key, arg in self.kwargs.items()})

    def record(
        self, name: str, args: tuple[Arg, ...], kwargs: KwArgs, types: tuple[Type, ...]
    ) -> tuple[Value, ...]:
        """The op, or a functional form of it, on the tape: its results."""
        tape = self.tensors.tape
        if self.info.random:
            return record_random(name, args, kwargs, types, self.tensors.draws, tape)
        return tape.emit(name, args, kwargs, types)

    def tensor_args(self) -> list[Tensor]:
        """The positional arguments that are tensors."""
        return [arg for arg in self.args if isinstance(arg, Tensor)]


def depends_on_data(name: str, error: Exception | None = None) -> CaptureError:
    """The refusal of an op whose shape, or whose Python number, is known only in a run."""
    if isinstance(error, compat.DataDependentOutputException):
        return CaptureError(
            f"what {name} gives is a Python value that depends on data",
            fix="keep it a tensor (torch.where, (a == b).all()), or decide outside of the step",
        )
    fix = FIXED_SHAPE.get(name.split(".")[1], "torch.where, or a multiplication by the mask")
    return CaptureError(
        f"the shape of what {name} gives depends on data", fix=f"keep shapes fixed: {fix}"
    )


def _text(arg: Any) -> str:
    if isinstance(arg, Tensor):
        name = short_dtype(str(arg.dtype).removeprefix("torch."))
        return f"{name}[{', '.join(map(str, arg.shape))}]"
    if isinstance(arg, list | tuple):
        return f"[{', '.join(map(_text, arg))}]"
    if isinstance(arg, torch.SymFloat):
        return "host f64"
    plain = bool | int | float | str | None | torch.dtype | torch.memory_format
    return str(arg).removeprefix("torch.") if isinstance(arg, plain) else type(arg).__name__


def flat(out: Any) -> list[Any]:
    """The results of an op as a list, also where it is one."""
    return list(out) if isinstance(out, list | tuple) else [out]


def flat_tensors(args: Any) -> list[Tensor]:
    """The tensors in nested lists and dicts of arguments."""
    if isinstance(args, Tensor):
        return [args]
    items = args.values() if isinstance(args, dict) else args
    nested = isinstance(args, dict | list | tuple)
    return [tensor for item in items for tensor in flat_tensors(item)] if nested else []


def refuse(call: Call) -> Any:
    """Raises: the op can't be part of a Program."""
    why, fix = reason(call.info.name)
    raise CaptureError(f"{call.info.name} {why}", where=user_line(), fix=fix)
