"""Hyper-parameters of optimizers: those that are inputs of the Program, and a watch on the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from supernode.capture import compat
from supernode.capture.host import HostLedger
from supernode.errors import CaptureError
from supernode.ir import HostType, Value

PROMOTED = ("lr", "betas", "momentum")
"""What schedulers change, and so is an input; any other value is fixed at capture."""

_PLAIN_LOOPS = ("foreach", "fused", "capturable")


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameter:
    """One promoted number: `optimizer.groups[0].betas[1]`."""

    name: str
    optimizer: Optimizer
    group: int
    key: str
    position: int | None

    def current(self) -> float:
        """Its value in the optimizer now."""
        value = self.optimizer.param_groups[self.group][self.key]
        return value if self.position is None else value[self.position]

    def set(self, value: object) -> None:
        """Puts another value, or the number of a recording, into the optimizer."""
        group = self.optimizer.param_groups[self.group]
        if self.position is None:
            group[self.key] = value
        else:
            items = list(group[self.key])
            items[self.position] = value
            group[self.key] = tuple(items)


def prefix(index: int) -> str:
    """The name of an optimizer in ports."""
    return f"optimizer{index or ''}"


def promoted(optimizers: tuple[Optimizer, ...]) -> list[HyperParameter]:
    """The promoted hyper-parameters of all groups.

    Raises:
        CaptureError: one of them is a tensor.
    """
    return [each for i, optimizer in enumerate(optimizers) for each in _promoted(optimizer, i)]


def _promoted(optimizer: Optimizer, index: int) -> Iterator[HyperParameter]:
    for number, group in enumerate(optimizer.param_groups):
        for key in PROMOTED:
            value = group.get(key)
            name = f"{prefix(index)}.groups[{number}].{key}"
            items = list(enumerate(value)) if isinstance(value, tuple) else [(None, value)]
            for position, item in items:
                if isinstance(item, Tensor):
                    raise CaptureError(f"{name} is a tensor", fix="make it a plain number")
                if isinstance(item, int | float) and not isinstance(item, bool):
                    full = name if position is None else f"{name}[{position}]"
                    yield HyperParameter(
                        name=full, optimizer=optimizer, group=number, key=key, position=position
                    )


def install(parameters: list[HyperParameter], ledger: HostLedger) -> list[tuple[str, Value]]:
    """Puts host numbers into the groups; gives the input value of each."""
    inputs: list[tuple[str, Value]] = []
    for each in parameters:
        value = ledger.tape.value(HostType("float64"))
        number = ledger.hyper_parameter(each.name, value, float(each.current()))
        each.set(number)
        inputs.append((each.name, value))
    return inputs


def use_plain_loops(optimizers: tuple[Optimizer, ...]) -> None:
    """One tensor at a time with numbers of the host: the formula of the CPU default."""
    for optimizer in optimizers:
        if any(group.get("fused") for group in optimizer.param_groups):
            compat.leave_scaling_alone(optimizer)
        for group in optimizer.param_groups:
            for key in _PLAIN_LOOPS:
                if key in group:
                    group[key] = False


Fixed = dict[str, Any]


def fixed_values(optimizers: tuple[Optimizer, ...]) -> Fixed:
    """All that is not promoted, by name, so that a change can be noticed and named."""
    fixed: Fixed = {}
    for index, optimizer in enumerate(optimizers):
        for number, group in enumerate(optimizer.param_groups):
            name = f"{prefix(index)}.groups[{number}]"
            fixed[f"{name}.params"] = [id(param) for param in group["params"]]
            for key, value in group.items():
                if key != "params" and not _is_promoted(key, value):
                    fixed[f"{name}.{key}"] = value
        fixed[f"{prefix(index)}.param_groups"] = len(optimizer.param_groups)
    return fixed


# Schedulers note these in the groups; no optimizer reads them.
_NOTES = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")


def changed(before: Fixed, after: Fixed) -> list[str]:
    """The names whose values differ."""
    names = dict.fromkeys((*before, *after))
    return [
        name
        for name in names
        if name.rpartition(".")[2] not in _NOTES and not _same(before.get(name), after.get(name))
    ]


def _is_promoted(key: str, value: Any) -> bool:
    return key in PROMOTED and not (value is None or isinstance(value, bool | Tensor))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is b
    return type(a) is type(b) and a == b
