"""A captured step: its Program and how its ports meet the user's model and optimizers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supernode.capture import compat, hyper
from supernode.capture.arguments import Arguments, arguments_of
from supernode.capture.build import Slot
from supernode.capture.host import Guard
from supernode.capture.optimizer_state import OptimizerStates, StateEntry
from supernode.capture.schedule import Schedule
from supernode.capture.subject import Subject
from supernode.errors import CaptureError
from supernode.ir import Program

_AGAIN = "capture the step again"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Captured:
    """A train step as a Program, with the tensors behind its ports.

    `constants` holds the tensors that the step uses and that belong to nobody, by port name.
    """

    program: Program
    constants: dict[str, Tensor]
    versions: tuple[tuple[Tensor, int], ...]
    subject: Subject
    states: OptimizerStates
    arguments: Arguments
    schedule: Schedule
    guards: tuple[Guard, ...]
    fixed: hyper.Fixed
    modes: "Modes"
    slots: tuple[Slot, ...]
    result_spec: Any

    def inputs(self) -> dict[str, Tensor | float]:
        """The present value of each input but the arguments, by port name.

        Optimizer state that does not exist yet has the value the optimizer would start it with.
        """
        found: dict[str, Tensor | float] = {**self.constants, **self.host_values()}
        wanted = {port.name for port in self.program.inputs if port.role != "arg"}
        for name, tensor in (*self.subject.params.items(), *self.subject.buffers.items()):
            found[name] = tensor.detach()
        for entry in self.states.entries:
            if entry.name in wanted:
                found[entry.name] = self._state(entry)
        for name, param in self.subject.params.items():
            if f"grad[{name}]" in wanted:
                grad = param.grad
                found[f"grad[{name}]"] = torch.zeros_like(param) if grad is None else grad
        return {port.name: found[port.name] for port in self.program.inputs if port.name in wanted}

    def _state(self, entry: StateEntry) -> Tensor:
        param = self.subject.params[entry.param]
        existing = entry.optimizer.state.get(param, {}).get(entry.key)
        if isinstance(existing, Tensor):
            return existing.detach()
        return entry.initial(param.device)

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The tensors of a call, by port name.

        Raises:
            InputError: another structure, shape, dtype or fixed value than at capture.
        """
        return self.arguments.match(arguments_of(self.arguments.step, args, kwargs))

    def host_values(self) -> dict[str, float]:
        """The present value of each promoted hyper-parameter, by port name.

        Raises:
            CaptureError: something that was fixed at capture has changed since.
        """
        self._check_unchanged()
        values = {
            each.name: float(each.current()) for each in hyper.promoted(self.subject.optimizers)
        }
        for guard in self.guards:
            if not guard.holds(values):
                raise CaptureError(
                    "the step branches on a hyper-parameter that has changed since the capture",
                    where=guard.where,
                    fix=_AGAIN,
                )
        return {p.name: values[p.name] for p in self.program.inputs if p.role == "host"}

    def _check_unchanged(self) -> None:
        names = hyper.changed(self.fixed, hyper.fixed_values(self.subject.optimizers))
        names += self.modes.changed(self.subject)
        names += [
            f"a constant of shape {tuple(tensor.shape)}"
            for tensor, version in self.versions
            if compat.version_of(tensor) != version
        ]
        if names:
            wrong = f"{', '.join(names)} changed since the capture"
            raise CaptureError(wrong, fix=f"{_AGAIN}, or keep it fixed")

    def after_step(self) -> None:
        """Steps the learning rate schedulers that the step stepped."""
        self.schedule.replay()

    def result(self, outputs: Sequence[Any]) -> Any:
        """What the step returns, given the outputs of the Program (or the results alone)."""
        leaves: list[Any] = []
        for slot in self.slots:
            leaf = slot.fixed if slot.index is None else outputs[slot.index]
            leaves.append(leaf.item() if slot.is_item else leaf)
        return compat.unflatten(leaves, self.result_spec)

    def write_back(self, values: Mapping[str, Tensor]) -> None:
        """Copies trained parameters, buffers and state, by port name, into model and optimizers.

        State that does not exist yet is created. Names that are not given stay as they are.
        """
        with torch.no_grad():
            for name, tensor in (*self.subject.params.items(), *self.subject.buffers.items()):
                if name in values:
                    tensor.copy_(values[name])
            for name, param in self.subject.params.items():
                if f"grad[{name}]" in values:
                    param.grad = values[f"grad[{name}]"].clone()
        self._write_state(values)

    def _write_state(self, values: Mapping[str, Tensor]) -> None:
        for entry in self.states.entries:
            if entry.name not in values:
                continue
            param = self.subject.params[entry.param]
            state = entry.optimizer.state[param]
            existing = state.get(entry.key)
            if isinstance(existing, Tensor):
                existing.copy_(values[entry.name])
            else:
                index = self.subject.optimizers.index(entry.optimizer)
                state.update(self.states.plain.get((index, entry.param), {}))
                fresh = entry.initial(param.device)
                state[entry.key] = fresh.copy_(values[entry.name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """What else a step branches on: train or eval mode, which parameters are trained."""

    training: bool | None
    trained: tuple[bool, ...]

    @classmethod
    def of(cls, subject: Subject) -> "Modes":
        """Those of a model now."""
        return cls(
            training=None if subject.model is None else subject.model.training,
            trained=tuple(param.requires_grad for param in subject.params.values()),
        )

    def changed(self, subject: Subject) -> list[str]:
        """The names of what differs now."""
        now = Modes.of(subject)
        names = [] if now.training == self.training else ["model.training"]
        pairs = zip(subject.params, self.trained, now.trained, strict=True)
        return names + [f"{name}.requires_grad" for name, old, new in pairs if old != new]
