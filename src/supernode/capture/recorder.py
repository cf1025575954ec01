"""The recorder: sees every ATen op of a step and writes it down as an op without mutation."""

from collections.abc import Callable
from typing import Any

import torch

from supernode.capture import compat, mutating, pure, scaling
from supernode.capture.call import Call, depends_on_data, refuse
from supernode.capture.checks import Check
from supernode.capture.compat import TorchDispatchMode
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
        self.checks: list[Check] = []
        self._handlers: dict[Kind, Callable[[Call], Any]] = {
            Kind.FUNCTIONAL: pure.functional,
            Kind.QUERY: pure.query,
            Kind.ALIAS: pure.alias,
            Kind.VIEW: pure.view,
            Kind.ITEM: lambda call: pure.item(call, self.host),
            Kind.COMPOSITE: pure.composite,
            Kind.FOREACH: pure.foreach,
            Kind.GROUPED_MM: pure.grouped_mm,
            Kind.CHECK: lambda call: pure.checked(call, self.checks),
            Kind.INPLACE: mutating.in_place,
            Kind.COPY: mutating.copy,
            Kind.OUT: mutating.out,
            Kind.RESHAPES_SELF: mutating.reshapes_self,
            Kind.WRITES_ARGUMENTS: lambda call: mutating.writes_arguments(call, pure.functional),
            Kind.UNSCALE: scaling.unscale,
            Kind.RESCALE: scaling.rescale,
            Kind.REFUSED: refuse,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _CPU}
        info = describe(func)
        call = Call(func, info, args, kwargs, self.tensors, self)
        try:
            return self._handlers[info.kind](call)
        except compat.UNSUPPORTED as error:
            folded = pure.on_constants(call)
            if folded is not None:
                return folded
            raise self._located(depends_on_data(info.name, error), call) from error
        except CaptureError as error:
            self._located(error, call)
            raise

    def _located(self, error: CaptureError, call: Call) -> CaptureError:
        """`error` with the op, and the module it belongs to."""
        site = self.tape.site()
        module = {
            "forward": site.module,
            "backward": f"{site.module or 'the step'}, backward of {site.source}",
            "optimizer": "the optimizer",
        }[site.phase]
        return error.complete(op=call.text(), where=user_line(), module=module)
