"""The state an optimizer keeps for each parameter: found by running it once on fakes."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from supernode.capture import compat, hyper
from supernode.capture.choices import both_ways
from supernode.capture.host import symbolic_items
from supernode.capture.recorder import Recorder
from supernode.capture.sites import Sites
from supernode.capture.subject import Subject, made_fake
from supernode.capture.tensors import Tensors
from supernode.errors import CaptureError


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEntry:
    """One tensor of an optimizer's state.

    `like` is a fake of its shape, strides and dtype. `fill` is the number all of it starts with;
    None where it exists already.
    """

    name: str
    optimizer: Optimizer
    param: str
    key: str
    like: Tensor
    fill: float | None

    def initial(self, device: torch.device) -> Tensor:
        """The tensor the optimizer would have created."""
        assert self.fill is not None
        place = torch.device("cpu") if self.like.dim() == 0 else device
        size, stride = tuple(self.like.shape), self.like.stride()
        tensor = torch.empty_strided(size, stride, dtype=self.like.dtype, device=place)
        return tensor.fill_(self.fill)


Plain = dict[tuple[int, str], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerStates:
    """All state tensors, and by (optimizer, parameter) what the state holds besides tensors."""

    entries: list[StateEntry]
    plain: Plain


def learn(subject: Subject) -> OptimizerStates:
    """The state of all optimizers as it is from the second step on.

    Raises:
        CaptureError: a state that has no constant to start from.
    """
    entries: list[StateEntry] = []
    plain: Plain = {}
    for index, optimizer in enumerate(subject.optimizers):
        found = _existing(subject, optimizer) or _from_one_step(subject, optimizer)
        for name, param in subject.params.items():
            for key, (value, fill) in found.get(name, {}).items():
                if not isinstance(value, Tensor):
                    plain.setdefault((index, name), {})[key] = value
                    continue
                exists = isinstance(optimizer.state.get(param, {}).get(key), Tensor)
                port = f"{hyper.prefix(index)}.{key}[{name}]"
                entry = StateEntry(
                    name=port,
                    optimizer=optimizer,
                    param=name,
                    key=key,
                    like=compat.meta_like(value),
                    fill=None if exists else _start(optimizer, port, fill),
                )
                entries.append(entry)
    return OptimizerStates(entries=entries, plain=plain)


def _start(optimizer: Optimizer, name: str, fill: float | None) -> float:
    if fill is not None:
        return fill
    # The first buffer of SGD is the gradient itself: what 0 * momentum + gradient gives.
    if isinstance(optimizer, SGD) and not any(g["dampening"] for g in optimizer.param_groups):
        return 0.0
    raise CaptureError(
        f"{type(optimizer).__name__} starts {name} from the first gradient, not from a constant",
        fix="take one step without supernode first, so that the state exists",
    )


# By parameter name and key: a piece of state, and the number all of it was created with.
Found = dict[str, dict[str, tuple[Any, float | None]]]


def _trained(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _existing(subject: Subject, optimizer: Optimizer) -> Found:
    """The state, where no parameter lacks it; else nothing."""
    if not all(optimizer.state.get(param) for param in _trained(optimizer)):
        return {}
    names = subject.names()
    return {
        names[id(param)]: {key: (value, None) for key, value in state.items()}
        for param, state in optimizer.state.items()
        if id(param) in names
    }


def _from_one_step(subject: Subject, optimizer: Optimizer) -> Found:
    """The state after one step on fakes, with gradients for all."""
    mode = compat.fake_mode()
    existing = {param: dict(state) for param, state in optimizer.state.items()}
    with made_fake(subject, mode):
        recorder = Recorder(mode, Sites({}, {}))
        tensors = recorder.tensors
        for tensor in subject.tensors():
            tensors.register(tensor)
        optimizer.state = _fake_states(existing, mode, tensors)
        hyper.use_plain_loops((optimizer,))
        like = _like(optimizer)
        for group in optimizer.param_groups:
            group["params"] = [param for param in group["params"] if like[param] is param]
        for param in _trained(optimizer):
            param.grad = compat.fake_like(mode, param.detach())
            tensors.register(param.grad)
        with symbolic_items(), both_ways(tensors, recorder.host), mode, recorder:
            optimizer.step()
        names = subject.names()
        return {
            names[id(param)]: {
                key: (value, _fill(value, tensors)) for key, value in optimizer.state[first].items()
            }
            for param, first in like.items()
            if optimizer.state.get(first)
        }


def _like(optimizer: Optimizer) -> dict[Tensor, Tensor]:
    """For each parameter the first one that torch's own optimizers give the same state.

    They look at the tensor and the settings of its group alone; a model of a hundred layers has
    few kinds. Other optimizers, and those with some state already, are asked for each.
    """
    own = type(optimizer).__module__.startswith("torch.optim.") and not optimizer.state
    own = own and not compat.has_step_hooks(optimizer)
    kinds: dict[object, Tensor] = {}
    like: dict[Tensor, Tensor] = {}
    for number, group in enumerate(optimizer.param_groups):
        for param in group["params"]:
            kind = (number, param.shape, param.stride(), param.dtype, param.requires_grad)
            like[param] = kinds.setdefault((kind, param.device) if own else id(param), param)
    return like


def _fill(value: Any, tensors: Tensors) -> float | None:
    return tensors.view_of(value).memory.fill if isinstance(value, Tensor) else None


def _fake_states(states: dict[Any, dict[str, Any]], mode: Any, tensors: Tensors) -> Any:
    fakes: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
    for param, state in states.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                value = compat.fake_like(mode, value)
                tensors.register(value)
            fakes[param][key] = value
    return fakes
