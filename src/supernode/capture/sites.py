"""Where an op comes from: module, phase and line of the user's code."""

import inspect
import sys
import sysconfig
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from supernode.capture import compat
from supernode.ir import Phase, Site

_NOT_THE_USERS = (
    str(Path(torch.__file__).parent),
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "api.py"),
    str(Path(__file__).parents[1] / "kernels"),
    "<frozen",
    "<string>",
)
_STDLIB = sysconfig.get_paths()["stdlib"]
_PHASES: tuple[tuple[str, Phase], ...] = (
    (str(Path("nn", "utils", "clip_grad.py")), "optimizer"),
    (str(Path("torch", "autograd", "__init__.py")), "backward"),
)
"""Files of torch that tell the phase of what they run."""


class _Lines:
    """Whether a code object is the user's, remembered by code object."""

    def __init__(self) -> None:
        self._known: dict[CodeType, bool] = {}

    def is_users(self, code: CodeType) -> bool:
        known = self._known.get(code)
        if known is None:
            path = code.co_filename
            stdlib = path.startswith(_STDLIB) and "site-packages" not in path
            known = self._known[code] = not (path.startswith(_NOT_THE_USERS) or stdlib)
        return known


_LINES = _Lines()


def _user_frame(depth: int) -> tuple[FrameType | None, Phase]:
    """The innermost frame of the user, and the phase that the frames of torch below it tell."""
    phase: Phase = "forward"
    frame: FrameType | None = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and not _LINES.is_users(frame.f_code):
        for ending, told in _PHASES:
            if frame.f_code.co_filename.endswith(ending):
                phase = told
        frame = frame.f_back
    return frame, phase


def user_line() -> str:
    """`path:line` of the line of the user's code that is running."""
    frame, _ = _user_frame(1)
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def raising_line(error: BaseException) -> str:
    """`path:line` of the innermost line of the user's code that an error passed."""
    found, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if _LINES.is_users(code):
            found = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def definition_line(step: Callable[..., Any]) -> str:
    """`path:line` of where a step is defined; empty if it has no Python source."""
    call = type(step).__call__ if not hasattr(step, "__code__") else step
    code = getattr(inspect.unwrap(call), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""


def _short(frame: FrameType | None) -> str:
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class Sites:
    """Tracks modules and optimizers as they run; `here()` is the site of the next op."""

    def __init__(self, modules: dict[int, str], parameters: dict[int, str]) -> None:
        self._modules = modules
        self._parameters = parameters
        self._stack: list[str] = []
        self._raised = 0
        self.raised_in = ""
        """The innermost module that the last error passed."""
        self._in_optimizer = 0
        self._by_sequence: dict[int, Site] = {}
        self._interned: dict[Site, Site] = {}
        self._regions = 0
        self._region = ""

    @contextmanager
    def tracking(self) -> Generator[None]:
        """Follows the calls of modules and optimizers."""
        hooks = [
            register_optimizer_step_pre_hook(self._enter_optimizer),
            register_optimizer_step_post_hook(self._leave_optimizer),
        ]
        try:
            # Not by global module hooks: torch.compile warns the user of them.
            with compat.patched(nn.Module, "__call__", self._tracked(nn.Module.__call__)):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def region(self) -> Generator[None]:
        """Around what the user's model checkpoints; one inside another is part of it."""
        outer = self._region
        self._regions += not outer
        self._region = outer or str(self._regions)
        try:
            yield
        finally:
            self._region = outer

    @contextmanager
    def updating(self) -> Generator[None]:
        """Around what is part of the update, though no optimizer does it."""
        self._enter_optimizer()
        try:
            yield
        finally:
            self._leave_optimizer()

    def _tracked(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            outer = self._stack[-1] if self._stack else ""
            here = self._modules.get(id(module), outer)
            self._stack.append(here)
            try:
                return plain(module, *args, **kwargs)
            except BaseException as error:
                if id(error) != self._raised:
                    self._raised, self.raised_in = id(error), here
                raise
            finally:
                self._stack.pop()

        return call

    def _enter_optimizer(self, *args: Any) -> None:
        self._in_optimizer += 1

    def _leave_optimizer(self, *args: Any) -> None:
        self._in_optimizer -= 1

    def here(self) -> Site:
        """The site of the op that is being recorded."""
        node = compat.backward_node()
        if node is not None:
            return self._backward(node)
        frame, phase = _user_frame(3)
        if self._in_optimizer or phase != "forward":
            return self._intern("", "optimizer" if self._in_optimizer else phase, _short(frame))
        site = self._intern(self._stack[-1] if self._stack else "", "forward", _short(frame))
        # The first op below a new autograd node is the one it differentiates.
        self._by_sequence.setdefault(compat.last_sequence_number(), site)
        return site

    def _backward(self, node: Any) -> Site:
        forward = self._by_sequence.get(node._sequence_nr())
        if forward is not None:
            if torch.is_grad_enabled():  # differentiated again
                self._by_sequence.setdefault(compat.last_sequence_number(), forward)
            return self._intern(forward.module, "backward", forward.source)
        variable = getattr(node, "variable", None)
        name = self._parameters.get(id(variable), "") if isinstance(variable, Tensor) else ""
        return self._intern(name.rpartition(".")[0], "backward", _short(_user_frame(4)[0]))

    def _intern(self, module: str, phase: Phase, source: str) -> Site:
        region = self._region if phase == "forward" else ""
        site = Site(module, phase, source, region=region)
        return self._interned.setdefault(site, site)
