"""One run of the user's step on fakes, and all that is learned from it."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from supernode.capture import compat, hyper
from supernode.capture.arguments import Arguments
from supernode.capture.host import HostFloat, data_dependent, symbolic_items
from supernode.capture.optimizer_state import OptimizerStates
from supernode.capture.recorder import Recorder
from supernode.capture.schedule import Schedule
from supernode.capture.sites import Sites, user_line
from supernode.capture.subject import Subject, made_fake
from supernode.errors import CaptureError
from supernode.ir import Port, Value

Ports = list[tuple[Port, Value]]


@dataclass(slots=True, kw_only=True)
class Recording:
    """What a run of the step gave.

    `updates` is the value behind each input name after the step. `kept_gradients` are the
    parameters that have a gradient when the step ends; `stale_gradients` those whose gradient
    from before the step would have been read.
    """

    recorder: Recorder
    inputs: Ports
    updates: dict[str, Value] = field(default_factory=dict[str, Value])
    results: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    result_spec: Any = None
    kept_gradients: list[str] = field(default_factory=list[str])
    stale_gradients: list[str] = field(default_factory=list[str])
    schedule: Schedule = field(default_factory=lambda: Schedule([]))


def record(
    step: Callable[..., Any],
    subject: Subject,
    states: OptimizerStates,
    arguments: Arguments,
    gradients: list[str],
) -> Recording:
    """Runs `step` once on fakes; the parameters named in `gradients` have one beforehand."""
    mode = compat.fake_mode()
    with made_fake(subject, mode):
        sites = Sites(subject.module_names(), subject.names())
        run = Recording(recorder=Recorder(mode, sites), inputs=[])
        held = _register(run, subject, states, gradients, mode)
        args, kwargs = _fake_arguments(run, arguments, mode)
        before = _attributes(subject)
        cleared = _Cleared(subject)
        with _patches(run, sites, cleared), mode, run.recorder:
            result = _run(step, args, kwargs)
            leaves, run.result_spec = compat.flatten(result)
            run.results = [(path, _result(leaf, run.recorder)) for path, leaf in leaves]
            _read_back(run, subject, states, held)
        _check_attributes(before, subject, run)
        run.kept_gradients = [n for n, p in subject.params.items() if p.grad is not None]
        run.stale_gradients = [n for n in subject.params if n not in cleared.names]
        return run


def _run(step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return step(*args, **kwargs)
    except (TypeError, IndexError) as error:
        # Where torch wants a plain number it names the type it got.
        if HostFloat.__name__ not in str(error):
            raise
        raise data_dependent("used as a plain number", error) from error


@dataclass(slots=True)
class _Held:
    """The tensor objects that were put in place, and the groups as they were."""

    states: dict[Optimizer, Any]
    fixed: hyper.Fixed
    promoted: dict[str, Any]
    parameters: list[hyper.HyperParameter]


def _register(
    run: Recording,
    subject: Subject,
    states: OptimizerStates,
    gradients: list[str],
    mode: Any,
) -> _Held:
    recorder = run.recorder
    for name, param in subject.params.items():
        run.inputs.append((Port(name=name, role="param"), recorder.register(param)))
    for name, buffer in subject.buffers.items():
        run.inputs.append((Port(name=name, role="buffer"), recorder.register(buffer)))
    fakes: dict[Optimizer, Any] = {o: defaultdict(dict) for o in subject.optimizers}
    for entry in states.entries:
        fake = compat.fake_like(mode, entry.like)
        port = Port(name=entry.name, role="state", of=entry.param)
        run.inputs.append((port, recorder.register(fake)))
        fakes[entry.optimizer][subject.params[entry.param]][entry.key] = fake
    for (index, name), plain in states.plain.items():
        fakes[subject.optimizers[index]][subject.params[name]].update(plain)
    for name in gradients:
        param = subject.params[name]
        param.grad = compat.fake_like(mode, param.detach())
        port = Port(name=f"grad[{name}]", role="state", of=name)
        run.inputs.append((port, recorder.register(param.grad)))
    for optimizer, state in fakes.items():
        optimizer.state = state
    hyper.use_plain_loops(subject.optimizers)
    parameters = hyper.promoted(subject.optimizers)
    for name, value in hyper.install(parameters, recorder.host):
        run.inputs.append((Port(name=name, role="host"), value))
    return _Held(
        states=fakes,
        fixed=hyper.fixed_values(subject.optimizers),
        promoted={each.name: each.current() for each in parameters},
        parameters=parameters,
    )


def _fake_arguments(
    run: Recording, arguments: Arguments, mode: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    fakes: dict[str, Tensor] = {}
    for name, tensor in arguments.tensors.items():
        fakes[name] = fake = compat.fake_like(mode, tensor)
        value = run.recorder.register(fake, read_only=f"its argument {name}")
        run.inputs.append((Port(name=name, role="arg"), value))
    return arguments.rebuild(fakes)


@contextmanager
def _patches(run: Recording, sites: Sites, cleared: "_Cleared") -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(sites.tracking())
        stack.enter_context(run.schedule.recording())
        stack.enter_context(compat.no_checkpointing())
        stack.enter_context(symbolic_items())
        stack.enter_context(compat.patched(torch.autocast, "__enter__", _enter_autocast))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(cleared.watching())
        stack.enter_context(compat.looking_real(run.recorder.is_unknown))
        yield


_plain_enter = torch.autocast.__enter__


def _enter_autocast(self: torch.autocast) -> Any:
    if self._enabled and self.device != "cpu":
        raise CaptureError(
            f"autocast for {self.device}: a step is recorded as for the CPU",
            where=user_line(),
            fix='use torch.autocast("cpu", dtype=torch.bfloat16); it runs on any chip',
        )
    return _plain_enter(self)


class _Cleared:
    """Which parameters had `zero_grad` called on them before they got a gradient."""

    def __init__(self, subject: Subject) -> None:
        self.names: set[str] = set()
        self._ids = subject.names()

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner in (Optimizer, nn.Module):
                stack.enter_context(compat.patched(owner, "zero_grad", self._watched(owner)))
            yield

    def _watched(self, owner: type[Optimizer] | type[nn.Module]) -> Callable[..., None]:
        plain: Any = vars(owner)["zero_grad"]

        def zero_grad(cleared: Any, *args: Any, **kwargs: Any) -> None:
            for param in _parameters_of(cleared):
                if param.grad is None and id(param) in self._ids:
                    self.names.add(self._ids[id(param)])
            plain(cleared, *args, **kwargs)

        return zero_grad


def _parameters_of(owner: Optimizer | nn.Module) -> Iterator[Tensor]:
    if isinstance(owner, nn.Module):
        yield from owner.parameters()
        return
    for group in owner.param_groups:
        yield from group["params"]


def _result(leaf: Any, recorder: Recorder) -> Any:
    """A value, a value of which `.item()` was taken, or a plain object."""
    if isinstance(leaf, Tensor):
        return recorder.value_of(leaf)
    return leaf.node if isinstance(leaf, HostFloat) else leaf


def _read_back(run: Recording, subject: Subject, states: OptimizerStates, held: _Held) -> None:
    recorder = run.recorder
    _check_groups(run, subject, held)
    current = _current_tensors(subject)
    for name, tensor in (*subject.params.items(), *subject.buffers.items()):
        after = current.get(name)
        if after is not tensor and (name in subject.params or not isinstance(after, Tensor)):
            raise CaptureError(f"the step replaces {name} by another object")
        run.updates[name] = recorder.value_of(after if after is not None else tensor)
    for entry in states.entries:
        state = held.states[entry.optimizer][subject.params[entry.param]]
        after = state.get(entry.key)
        if not isinstance(after, Tensor):
            raise CaptureError(f"the step removes {entry.name}")
        run.updates[entry.name] = recorder.value_of(after)
    _check_state(subject, states, held)
    for name, param in subject.params.items():
        if param.grad is not None:
            run.updates[f"grad[{name}]"] = recorder.value_of(param.grad)


def _current_tensors(subject: Subject) -> Mapping[str, Any]:
    if subject.model is None:
        return {}
    model = subject.model
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _check_state(subject: Subject, states: OptimizerStates, held: _Held) -> None:
    for index, optimizer in enumerate(subject.optimizers):
        for name, param in subject.params.items():
            state = held.states[optimizer].get(param, {})
            plain = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
            if plain != states.plain.get((index, name), {}):
                raise CaptureError(
                    f"{type(optimizer).__name__} keeps a Python number for {name} that each step "
                    "changes",
                    fix="keep it as a tensor, as the optimizers of torch do",
                )


def _check_groups(run: Recording, subject: Subject, held: _Held) -> None:
    """Refuses a step that sets hyper-parameters by hand."""
    stepped = {id(scheduler.optimizer) for scheduler in run.schedule.stepped}
    names = hyper.changed(held.fixed, hyper.fixed_values(subject.optimizers))
    for each in held.parameters:
        same = each.key in each.optimizer.param_groups[each.group]
        if id(each.optimizer) not in stepped and (
            not same or each.current() is not held.promoted[each.name]
        ):
            names.append(each.name)
    names = [name for name in names if not _moved(name, subject, stepped)]
    if names:
        raise CaptureError(
            f"the step sets {', '.join(names)}",
            fix="set it outside of the step; its current value is an input of the step",
        )


def _moved(name: str, subject: Subject, stepped: set[int]) -> bool:
    """Whether a scheduler that was stepped accounts for the change of a hyper-parameter."""
    key = name.rpartition(".")[2]
    return key in hyper.PROMOTED and any(
        name.startswith(f"{hyper.prefix(index)}.") and id(optimizer) in stepped
        for index, optimizer in enumerate(subject.optimizers)
    )


def _attributes(subject: Subject) -> list[tuple[nn.Module, dict[str, Tensor]]]:
    """The tensors that modules hold as plain attributes."""
    modules = subject.model.modules() if subject.model is not None else ()
    found = [
        (module, {k: v for k, v in vars(module).items() if isinstance(v, Tensor)})
        for module in modules
    ]
    return [(module, tensors) for module, tensors in found if tensors]


def _check_attributes(
    before: list[tuple[nn.Module, dict[str, Tensor]]], subject: Subject, run: Recording
) -> None:
    for module, tensors in before:
        for name, tensor in tensors.items():
            if vars(module).get(name) is not tensor and run.recorder.knows(tensor):
                raise CaptureError(
                    f"the step changes {type(module).__name__}.{name}, a plain attribute",
                    fix="register it as a buffer (register_buffer), which the step may change",
                )
