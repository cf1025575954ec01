"""An update that a step makes only where data says so, such as where all gradients are finite.

It is recorded as if it were made; each tensor it writes is then what `where` picks of the new and
the old.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from supernode.capture.aliases import write
from supernode.capture.checks import Check
from supernode.capture.schedule import Schedule
from supernode.capture.sites import Sites, user_line
from supernode.capture.tensors import Tensors
from supernode.errors import CaptureError
from supernode.ir import TensorType, Value


class Perhaps:
    """The updates of one recording that a run may skip."""

    def __init__(
        self, tensors: Tensors, checks: list[Check], schedule: Schedule, sites: Sites
    ) -> None:
        self._tensors = tensors
        self._checks = checks
        self._schedule = schedule
        self._sites = sites

    @contextmanager
    def only_where(self, condition: Value, optimizer: Optimizer) -> Generator[None]:
        """What the step of `optimizer` inside changes stays only where `condition`, a bool, holds.

        Raises:
            CaptureError: it changes what can't be picked when the step runs.
        """
        before = [(view, view.memory.version, view.value) for view in self._tensors.memories()]
        states = {param: dict(state) for param, state in optimizer.state.items()}
        grads = _gradients(optimizer)
        checked, stepped = len(self._checks), len(self._schedule.stepped)
        yield
        with self._sites.updating():
            for view, version, old in before:
                if view.memory.version != version:
                    write(view, self._picked(condition, view.value, old), self._tensors.tape)
            for param, state in states.items():
                self._put_back(condition, state, optimizer.state[param])
            self._pass_where_skipped(condition, checked)
        if grads != _gradients(optimizer):
            raise _refusal("sets or clears gradients")
        if stepped != len(self._schedule.stepped):
            raise _refusal("steps a scheduler")
        known = {id(view.memory) for view, _, _ in before}
        if self._leaves_others(known):
            gc.collect()
            if self._leaves_others(known):
                raise _refusal("leaves a tensor that was not there before")

    def _picked(self, condition: Value, new: Value, old: Value) -> Value:
        return self._emit("aten.where.self", (condition, new, old), old.tensor)

    def _emit(self, name: str, args: tuple[Value, ...], type_: TensorType) -> Value:
        (value,) = self._tensors.tape.emit(name, args, (), (type_,))
        return value

    def _put_back(self, condition: Value, before: dict[str, Any], after: dict[str, Any]) -> None:
        """State that is another tensor now: its value goes into the one that was there."""
        for key, tensor in before.items():
            new = after.get(key)
            if new is tensor or not isinstance(tensor, Tensor) or not isinstance(new, Tensor):
                continue
            value, old = self._tensors.value_of(new), self._tensors.value_of(tensor)
            if value.type != old.type:
                raise _refusal(f"changes the shape or dtype of {key}")
            view = self._tensors.view_of(tensor)
            write(view, self._picked(condition, value, old), self._tensors.tape)
            after[key] = tensor

    def _pass_where_skipped(self, condition: Value, first: int) -> None:
        """Checks that the update makes ask nothing where it is skipped."""
        skipped = self._emit("aten.logical_not", (condition,), condition.tensor)
        for position, each in enumerate(self._checks[first:], first):
            type_ = TensorType("bool", each.value.tensor.shape)
            passes = self._emit("aten.logical_or", (each.value, skipped), type_)
            self._checks[position] = replace(each, value=passes)

    def _leaves_others(self, known: set[int]) -> bool:
        """Whether somebody holds memory that is not `known`, and not made of constants alone."""
        tape = self._tensors.tape
        return any(
            id(view.memory) not in known and tape.fixed_cone(view.value) is None
            for view in self._tensors.memories()
        )


def _gradients(optimizer: Optimizer) -> list[int]:
    return [id(param.grad) for group in optimizer.param_groups for param in group["params"]]


def _refusal(what: str) -> CaptureError:
    return CaptureError(
        f"an update that the step may skip {what}",
        where=user_line(),
        fix="do that in every step, or outside of it",
    )
