"""The recorder: sees every ATen op of a step and writes it down as an op without mutation."""

from collections.abc import Callable
from typing import Any

import torch

from supernode.capture import compat, mutating, pure
from supernode.capture.call import Call, refuse
from supernode.capture.compat import OpOverload, TorchDispatchMode
from supernode.capture.functional import Kind, describe
from supernode.capture.host import HostLedger
from supernode.capture.sites import Sites, user_line
from supernode.capture.tape import Tape
from supernode.capture.tensors import Tensors
from supernode.errors import CaptureError

_CPU = torch.device("cpu")


class Recorder(TorchDispatchMode):
    """Runs a step on fake tensors and records it on `tape`."""

    def __init__(self, mode: Any, sites: Sites) -> None:
        super().__init__()
        self.tape = Tape(sites.here)
        self.tensors = Tensors(mode, self.tape)
        self.host = HostLedger(self.tape)
        self._handlers: dict[Kind, Callable[[Call], Any]] = {
            Kind.FUNCTIONAL: pure.functional,
            Kind.QUERY: pure.query,
            Kind.ALIAS: pure.alias,
            Kind.VIEW: pure.view,
            Kind.ITEM: lambda call: pure.item(call, self.host),
            Kind.COMPOSITE: pure.composite,
            Kind.FOREACH: pure.foreach,
            Kind.GROUPED_MM: pure.grouped_mm,
            Kind.INPLACE: mutating.in_place,
            Kind.COPY: mutating.copy,
            Kind.OUT: mutating.out,
            Kind.RESHAPES_SELF: mutating.reshapes_self,
            Kind.WRITES_ARGUMENTS: lambda call: mutating.writes_arguments(call, pure.functional),
            Kind.REFUSED: refuse,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _CPU}
        if not isinstance(func, OpOverload):
            raise CaptureError(f"higher-order op {func} can't be recorded", where=user_line())
        info = describe(func)
        try:
            return self._handlers[info.kind](Call(func, info, args, kwargs, self.tensors, self))
        except compat.UNSUPPORTED as error:
            raise CaptureError(
                f"{info.name}: the shape or path depends on data ({type(error).__name__})",
                where=user_line(),
                fix="keep shapes fixed: torch.where, or a multiplication by the mask",
            ) from error
