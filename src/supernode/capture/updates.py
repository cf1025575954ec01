"""What a run of the step changed: the new value of each input, or why it can't be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from supernode.capture import hyper
from supernode.capture.optimizer_state import OptimizerStates
from supernode.capture.schedule import Schedule
from supernode.capture.subject import Subject
from supernode.capture.tensors import Tensors
from supernode.errors import CaptureError
from supernode.ir import Value

Attributes = list[tuple[nn.Module, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What was in place when the step began."""

    subject: Subject
    states: OptimizerStates
    held: dict[Optimizer, Any]
    fixed: hyper.Fixed
    parameters: list[hyper.HyperParameter]
    promoted: dict[str, Any]
    attributes: Attributes


def attributes_of(subject: Subject) -> Attributes:
    """The tensors that modules hold as plain attributes."""
    modules = subject.model.modules() if subject.model is not None else ()
    found = [
        (module, {k: v for k, v in vars(module).items() if isinstance(v, Tensor)})
        for module in modules
    ]
    return [(module, tensors) for module, tensors in found if tensors]


def updates(before: Before, tensors: Tensors, schedule: Schedule) -> dict[str, Value]:
    """The value of each parameter, buffer, state and gradient after the step, by port name.

    Raises:
        CaptureError: the step changed what a Program can't.
    """
    _check_groups(before, schedule)
    _check_state(before)
    _check_attributes(before.attributes, tensors)
    subject = before.subject
    found: dict[str, Value] = {}
    current = _current_tensors(subject)
    for name, tensor in (*subject.params.items(), *subject.buffers.items()):
        after = current.get(name)
        if after is not tensor and (name in subject.params or not isinstance(after, Tensor)):
            raise CaptureError(
                f"the step replaces {name} by another object",
                fix="write into it: p.copy_(new) under torch.no_grad()",
            )
        found[name] = tensors.value_of(tensor if after is None else after)
    for entry in before.states.entries:
        after = before.held[entry.optimizer][subject.params[entry.param]].get(entry.key)
        if not isinstance(after, Tensor):
            raise CaptureError(
                f"the step removes {entry.name}", fix="reset the optimizer outside of the step"
            )
        found[entry.name] = tensors.value_of(after)
    for name, param in subject.params.items():
        if param.grad is not None:
            found[f"grad[{name}]"] = tensors.value_of(param.grad)
    return found


def _current_tensors(subject: Subject) -> Mapping[str, Any]:
    if subject.model is None:
        return {}
    return {**dict(subject.model.named_parameters()), **dict(subject.model.named_buffers())}


def _check_state(before: Before) -> None:
    known = {(entry.optimizer, entry.param, entry.key) for entry in before.states.entries}
    for index, optimizer in enumerate(before.subject.optimizers):
        for name, param in before.subject.params.items():
            state = before.held[optimizer].get(param, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and (optimizer, name, key) not in known:
                    raise CaptureError(
                        f"{type(optimizer).__name__} adds {key} to the state of {name}",
                        fix="take one step without supernode first, so that the state exists",
                    )
            plain = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
            if plain != before.states.plain.get((index, name), {}):
                raise CaptureError(
                    f"{type(optimizer).__name__} keeps a Python number for {name} that each step "
                    "changes",
                    fix="keep it as a tensor, as the optimizers of torch do",
                )


def _check_groups(before: Before, schedule: Schedule) -> None:
    """Refuses a step that sets hyper-parameters by hand; what a scheduler moves is its own."""
    moved = {id(scheduler.optimizer) for scheduler in schedule.stepped}
    names = hyper.changed(before.fixed, hyper.fixed_values(before.subject.optimizers))
    names += [
        each.name
        for each in before.parameters
        if id(each.optimizer) not in moved and each.current() is not before.promoted[each.name]
    ]
    if names:
        raise CaptureError(
            f"the step sets {', '.join(names[:3])}{' …' if len(names) > 3 else ''}",
            fix="set it outside of the step; its current value is an input of the step",
        )


def _check_attributes(attributes: Attributes, tensors: Tensors) -> None:
    for module, held in attributes:
        for name, tensor in held.items():
            if vars(module).get(name) is not tensor and tensors.is_constant(tensor):
                raise CaptureError(
                    f"the step changes {type(module).__name__}.{name}, a plain attribute",
                    fix="register it as a buffer (register_buffer), which the step may change",
                )
