"""Scalers of the loss (`torch.amp.GradScaler`): scale and count of steps are state of the step."""

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from supernode.capture import compat
from supernode.capture.perhaps import Perhaps
from supernode.capture.sites import Sites, user_line
from supernode.capture.tensors import Tensors
from supernode.errors import CaptureError
from supernode.ir import Port, Value

STATE = {"scale": torch.float32, "growth_tracker": torch.int32}
"""The two numbers that a scaler keeps, and their dtypes."""
_SAVED = {"scale": "scale", "growth_tracker": "_growth_tracker"}
"""How `state_dict` of a scaler calls them."""
Settings = dict[str, float]


class Scalers:
    """The scalers that one recorded step uses, in the order in which it meets them."""

    def __init__(self, tensors: Tensors, perhaps: Perhaps, sites: Sites) -> None:
        self.met: list[GradScaler] = []
        self.inputs: list[tuple[Port, Value]] = []
        self._held: list[dict[str, Tensor]] = []
        self._before: list[dict[str, Any]] = []
        self._tensors = tensors
        self._perhaps = perhaps
        self._sites = sites

    @contextmanager
    def recording(self) -> Generator[None]:
        """Inside, scalers keep their numbers in tensors of the step; afterwards they are as they
        were."""
        with ExitStack() as stack:
            for name in ("scale", "get_scale"):
                plain = self._joining(getattr(GradScaler, name), nullcontext)
                stack.enter_context(compat.patched(GradScaler, name, plain))
            for name in ("unscale_", "step", "update"):
                plain = self._joining(getattr(GradScaler, name), self._sites.updating)
                stack.enter_context(compat.patched(GradScaler, name, plain))
            stack.enter_context(compat.patched(GradScaler, compat.STEP_OR_SKIP, self._stepping()))
            stack.callback(self._restore)
            yield

    def updates(self) -> dict[str, Value]:
        """Their numbers after the step, by port name.

        Raises:
            CaptureError: a scaler was not told that the step is over.
        """
        for scaler in self.met:
            if compat.is_amid_update(scaler):
                raise CaptureError(
                    "the step ends before scaler.update()",
                    fix="call scaler.update() once after scaler.step(...), in the step",
                )
        return {
            port_name(index, key): self._tensors.value_of(tensor)
            for index, held in enumerate(self._held)
            for key, tensor in held.items()
        }

    def _joining(self, plain: Callable[..., Any], around: Callable[[], Any]) -> Callable[..., Any]:
        def method(scaler: GradScaler, *args: Any, **kwargs: Any) -> Any:
            if scaler.is_enabled() and scaler not in self.met:
                self._meet(scaler)
            with around():
                return plain(scaler, *args, **kwargs)

        return method

    def _meet(self, scaler: GradScaler) -> None:
        if compat.is_amid_update(scaler):
            raise CaptureError(
                "the step begins before scaler.update()",
                where=user_line(),
                fix="call scaler.update() once after scaler.step(...), in the step",
            )
        # What makes these tensors is dropped, since they are inputs now.
        held = {key: torch.empty((), dtype=dtype) for key, dtype in STATE.items()}
        for key, tensor in held.items():
            port = Port(name=port_name(len(self.met), key), role="state")
            self.inputs.append((port, self._tensors.register(tensor)))
        self.met.append(scaler)
        self._held.append(held)
        self._before.append(dict(vars(scaler)))
        compat.set_scale(scaler, **held)

    def _stepping(self) -> Callable[..., None]:
        """The optimizer's step where all gradients were finite."""

        def step(
            scaler: GradScaler, optimizer: Optimizer, state: Any, *args: Any, **kwargs: Any
        ) -> None:
            fine = torch.stack(compat.found_inf(state)).sum() == 0
            with self._perhaps.only_where(self._tensors.value_of(fine), optimizer):
                optimizer.step(*args, **kwargs)

        return step

    def _restore(self) -> None:
        for scaler, attributes in zip(self.met, self._before, strict=True):
            vars(scaler).clear()
            vars(scaler).update(attributes)


def port_name(index: int, key: str) -> str:
    """The port of a number of the scaler met as `index`."""
    return f"scaler{index or ''}.{key}"


def settings(scaler: GradScaler) -> Settings:
    """What is fixed at capture."""
    return {
        "growth_factor": scaler.get_growth_factor(),
        "backoff_factor": scaler.get_backoff_factor(),
        "growth_interval": scaler.get_growth_interval(),
    }


def numbers_of(scalers: tuple[GradScaler, ...]) -> dict[str, Tensor]:
    """Their numbers now, by port name."""
    return {
        port_name(index, key): torch.tensor(scaler.state_dict()[_SAVED[key]], dtype=dtype)
        for index, scaler in enumerate(scalers)
        for key, dtype in STATE.items()
    }


def set_numbers(scalers: tuple[GradScaler, ...], values: Mapping[str, Tensor]) -> None:
    """The reverse of `numbers_of`; what is not given stays."""
    for index, scaler in enumerate(scalers):
        given = {
            saved: values[name].item()
            for key, saved in _SAVED.items()
            if (name := port_name(index, key)) in values
        }
        scaler.load_state_dict({**scaler.state_dict(), **given})
