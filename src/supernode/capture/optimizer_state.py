"""The state an optimizer keeps for each parameter: found by running it once on fakes."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from supernode.capture import compat, hyper
from supernode.capture.host import symbolic_items
from supernode.capture.recorder import Recorder
from supernode.capture.sites import Sites
from supernode.capture.subject import Subject, made_fake
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
    found: list[StateEntry] = []
    plain: Plain = {}
    for index, optimizer in enumerate(subject.optimizers):
        states = _complete(subject, optimizer)
        for name, param in subject.params.items():
            for key, value in states.get(name, {}).items():
                if isinstance(value, Tensor):
                    existing = optimizer.state.get(param, {}).get(key)
                    found.append(_entry(index, optimizer, name, key, value, existing))
                else:
                    plain.setdefault((index, name), {})[key] = value
    return OptimizerStates(entries=found, plain=plain)


def _entry(
    index: int, optimizer: Optimizer, param: str, key: str, like: Tensor, existing: Any
) -> StateEntry:
    name = f"{hyper.prefix(index)}.{key}[{param}]"
    fill = None if isinstance(existing, Tensor) else _fill(optimizer, name, param, like)
    return StateEntry(
        name=name, optimizer=optimizer, param=param, key=key, like=like, fill=fill
    )


def _fill(optimizer: Optimizer, name: str, param: str, like: Tensor) -> float:
    memory = getattr(like, "_supernode_view").memory  # noqa: B009
    if memory.fill is not None:
        return memory.fill
    # The first buffer of SGD is the gradient itself: what 0 * momentum + gradient gives.
    if isinstance(optimizer, SGD) and not any(g["dampening"] for g in optimizer.param_groups):
        return 0.0
    raise CaptureError(
        f"{type(optimizer).__name__} starts {name} from the first gradient, not from a constant",
        fix="take one step without supernode first, so that the state exists",
    )


def _complete(subject: Subject, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """The state by parameter name; where some is missing, from one step on fakes."""
    trained = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]
    names = subject.names()
    if all(optimizer.state.get(param) for param in trained):
        return {names[id(p)]: dict(s) for p, s in optimizer.state.items() if id(p) in names}
    mode = compat.fake_mode()
    existing = {p: dict(state) for p, state in optimizer.state.items()}
    with made_fake(subject, mode):
        recorder = Recorder(mode, Sites({}, {}))
        for tensor in subject.tensors():
            recorder.register(tensor)
        optimizer.state = fake_states(existing, mode, recorder)
        hyper.use_plain_loops((optimizer,))
        for param in trained:
            param.grad = compat.fake_like(mode, param.detach())
            recorder.register(param.grad)
        with symbolic_items(), mode, recorder:
            optimizer.step()
        return {names[id(param)]: dict(state) for param, state in optimizer.state.items()}


def fake_states(states: dict[Any, dict[str, Any]], mode: Any, recorder: Recorder) -> Any:
    """The same state with each tensor a fake that the recorder knows."""
    fakes: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
    for param, state in states.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                value = compat.fake_like(mode, value)
                recorder.register(value)
            fakes[param][key] = value
    return fakes
