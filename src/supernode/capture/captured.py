"""A captured step: its Program and how its ports meet the user's model and optimizers."""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from supernode.capture import compat
from supernode.capture.arguments import Arguments, arguments_of
from supernode.capture.build import Slot
from supernode.capture.checks import Check, verify_checks
from supernode.capture.draws import SEED, STEP
from supernode.capture.hyper import promoted
from supernode.capture.optimizer_state import OptimizerStates, StateEntry
from supernode.capture.scaler import numbers_of, set_numbers
from supernode.capture.schedule import Schedule
from supernode.capture.subject import Subject
from supernode.capture.watch import Watch
from supernode.errors import CaptureError, CheckpointError
from supernode.ir import Program


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Captured:
    """A train step as a Program, with the tensors behind its ports.

    `constants` holds the tensors that the step uses and that belong to nobody, by port name; `seed`
    is that of torch's generator at capture, from which the step draws its random numbers.
    """

    program: Program
    constants: dict[str, Tensor]
    subject: Subject
    states: OptimizerStates
    arguments: Arguments
    schedule: Schedule
    scalers: tuple[GradScaler, ...]
    watch: Watch
    slots: tuple[Slot, ...]
    checks: tuple[Check, ...]
    result_spec: Any
    seed: int

    def inputs(self) -> dict[str, Tensor | float]:
        """What each input but the arguments starts with, by port name.

        Optimizer state that does not exist yet has the value the optimizer would start it with.
        """
        drawn_from: dict[str, Tensor | float] = {SEED: _int64(self.seed), STEP: _int64(0)}
        found = self.present() | drawn_from
        return {p.name: found[p.name] for p in self.program.inputs if p.role != "arg"}

    def present(self) -> dict[str, Tensor | float]:
        """The inputs that belong to model and optimizers, or to nobody, as they are now.

        The seed and the count of steps, which random numbers are drawn from, are the step's own.
        """
        found: dict[str, Tensor | float] = {**self.constants, **self.host_values()}
        found |= numbers_of(self.scalers)
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
        return {port.name: found[port.name] for port in self.program.inputs if port.name in found}

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
        values = self.watch.check(self.subject)
        return {p.name: values[p.name] for p in self.program.inputs if p.role == "host"}

    def after_step(self) -> None:
        """Steps the learning rate schedulers that the step stepped."""
        self.schedule.replay()

    def weights(self) -> set[str]:
        """The ports that the model's `state_dict()` has, too."""
        model = self.subject.model
        return set() if model is None else set(model.state_dict())

    def host_state(self) -> bytes:
        """What optimizers and schedulers keep in numbers, as torch saves it.

        Raises:
            CaptureError: a scheduler keeps something that can't be saved.
        """
        numbers = {each.name: each.current() for each in promoted(self.subject.optimizers)}
        file = io.BytesIO()
        try:
            torch.save({"numbers": numbers, "schedulers": self.schedule.states()}, file)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise CaptureError(
                f"the state of a learning rate scheduler can't be saved: {error}",
                fix="make it of numbers, or step the scheduler outside of the step",
            ) from None
        return file.getvalue()

    def restore_host_state(self, saved: bytes) -> None:
        """The reverse of `host_state`; nothing in it is run.

        Raises:
            CheckpointError: it is of other optimizers or schedulers; nothing has changed.
        """
        state = torch.load(io.BytesIO(saved), weights_only=True)
        numbers, schedulers = state["numbers"], state["schedulers"]
        hyper = {each.name: each for each in promoted(self.subject.optimizers)}
        if numbers.keys() != hyper.keys() or len(schedulers) != len(self.schedule.states()):
            raise CheckpointError(
                "the checkpoint is of other optimizers or learning rate schedulers: "
                f"{len(numbers)} hyper-parameters and {len(schedulers)} schedulers, the step has "
                f"{len(hyper)} and {len(self.schedule.states())}",
                fix="make them as they were when it was saved",
            )
        self.schedule.restore(schedulers)
        for name, number in numbers.items():
            hyper[name].set(number)

    def result(self, outputs: Sequence[Any]) -> Any:
        """What the step returns, given the outputs of the Program (or the results alone).

        Raises:
            CheckFailed: what the step checks about its data does not hold.
        """
        returned = sum(slot.index is not None for slot in self.slots)
        verify_checks(self.checks, outputs[returned : returned + len(self.checks)])
        leaves: list[Any] = []
        for slot in self.slots:
            leaf = slot.fixed if slot.index is None else outputs[slot.index]
            leaves.append(leaf.item() if slot.is_item else leaf)
        return compat.unflatten(leaves, self.result_spec)

    def write_back(self, values: Mapping[str, Tensor]) -> None:
        """Copies trained parameters, buffers and state, by port name, into model, optimizers and
        scalers.

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
        set_numbers(self.scalers, values)

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


def _int64(number: int) -> Tensor:
    """A seed of 64 bits, with or without a sign, as torch's integers have them."""
    return torch.tensor((number + 2**63) % 2**64 - 2**63)
