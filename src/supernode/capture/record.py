"""One run of the user's step on fakes, and all that is learned from it."""

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from supernode.capture import checks, compat, hyper
from supernode.capture.arguments import Arguments
from supernode.capture.choices import both_ways
from supernode.capture.cleared import Cleared
from supernode.capture.foreign import in_terms_of_the_step
from supernode.capture.host import HostFloat, symbolic_items
from supernode.capture.kept import make_real
from supernode.capture.optimizer_state import OptimizerStates
from supernode.capture.perhaps import Perhaps
from supernode.capture.recorder import Recorder
from supernode.capture.scaler import Scalers
from supernode.capture.schedule import Schedule
from supernode.capture.sites import Sites, raising_line, user_line
from supernode.capture.skipping import Skipping
from supernode.capture.subject import Subject, made_fake, sharing
from supernode.capture.updates import Before, attributes_of, updates
from supernode.errors import CaptureError, SupernodeError
from supernode.ir import Port, Role, Value


@dataclass(slots=True, kw_only=True)
class Recording:
    """What a run of the step gave.

    `updates` is the value behind each input name after the step. `kept_gradients` are the
    parameters that have a gradient when the step ends; `stale_gradients` those whose gradient
    from before the step would have been read.
    """

    recorder: Recorder
    inputs: list[tuple[Port, Value]] = field(default_factory=list[tuple[Port, Value]])
    updates: dict[str, Value] = field(default_factory=dict[str, Value])
    results: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    result_spec: Any = None
    kept_gradients: list[str] = field(default_factory=list[str])
    stale_gradients: list[str] = field(default_factory=list[str])
    schedule: Schedule = field(default_factory=Schedule)
    scalers: tuple[GradScaler, ...] = ()

    def add_input(self, name: str, role: Role, fake: Tensor, of: str = "", why: str = "") -> None:
        """Makes a fake an input; `why` says what may not be written."""
        value = self.recorder.tensors.register(fake, why)
        self.inputs.append((Port(name=name, role=role, of=of), value))


def record(
    step: Callable[..., Any],
    subject: Subject,
    states: OptimizerStates,
    arguments: Arguments,
    gradients: list[str],
) -> Recording:
    """Runs `step` once on fakes; the parameters named in `gradients` have one beforehand."""
    mode = compat.fake_mode()
    overlapping = sharing(subject)
    with made_fake(subject, mode):
        sites = Sites(subject.module_names(), subject.names())
        run = Recording(recorder=Recorder(mode, sites))
        before = _register(run, subject, states, gradients, mode)
        fakes = _fake_arguments(run, arguments, mode)
        args, kwargs = arguments.rebuild(fakes)
        cleared = Cleared(subject.names())
        tensors = run.recorder.tensors
        perhaps = Perhaps(tensors, run.recorder.checks, run.schedule, sites)
        scalers = Scalers(tensors, perhaps, sites)
        skipping = Skipping(tensors, perhaps)
        with (
            _patches(run, sites),
            scalers.recording(),
            skipping.recording(run.recorder.host),
            cleared.watching(),
            mode,
            run.recorder,
        ):
            leaves, run.result_spec = compat.flatten(_run(step, args, kwargs, sites))
            run.results = [(path, _result(leaf, run.recorder)) for path, leaf in leaves]
            run.updates = updates(before, tensors, run.schedule) | tensors.draws.updates
            run.updates |= scalers.updates()
        run.inputs += [*tensors.draws.inputs, *scalers.inputs]
        run.scalers = tuple(scalers.met)
        _check_arguments(fakes)
        _check_sharing(overlapping, run)
        run.kept_gradients = [n for n, p in subject.params.items() if p.grad is not None]
        run.stale_gradients = [n for n in subject.params if n not in cleared.names]
    make_real(run.recorder.tensors)
    return run


def _register(
    run: Recording, subject: Subject, states: OptimizerStates, gradients: list[str], mode: Any
) -> Before:
    """Puts fakes and host numbers in place, each an input."""
    for name, param in subject.params.items():
        run.add_input(name, "param", param)
    for name, buffer in subject.buffers.items():
        run.add_input(name, "buffer", buffer)
    held: dict[Optimizer, Any] = {o: defaultdict(dict) for o in subject.optimizers}
    for entry in states.entries:
        fake = compat.fake_like(mode, entry.like)
        run.add_input(entry.name, "state", fake, of=entry.param)
        held[entry.optimizer][subject.params[entry.param]][entry.key] = fake
    for (index, name), plain in states.plain.items():
        held[subject.optimizers[index]][subject.params[name]].update(plain)
    for name in gradients:
        param = subject.params[name]
        param.grad = compat.fake_like(mode, param.detach())
        run.add_input(f"grad[{name}]", "state", param.grad, of=name)
    for optimizer, state in held.items():
        optimizer.state = state
    hyper.use_plain_loops(subject.optimizers)
    parameters = hyper.promoted(subject.optimizers)
    for name, value in hyper.install(parameters, run.recorder.host):
        run.inputs.append((Port(name=name, role="host"), value))
    return Before(
        subject=subject,
        states=states,
        held=held,
        fixed=hyper.fixed_values(subject.optimizers),
        parameters=parameters,
        promoted={each.name: each.current() for each in parameters},
        attributes=attributes_of(subject),
    )


def _fake_arguments(run: Recording, arguments: Arguments, mode: Any) -> dict[str, Tensor]:
    fakes: dict[str, Tensor] = {}
    for name, tensor in arguments.tensors.items():
        fakes[name] = compat.fake_like(mode, tensor)
        run.add_input(name, "arg", fakes[name], why=f"its argument {name}")
    return fakes


def _run(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], sites: Sites
) -> Any:
    try:
        return step(*args, **kwargs)
    except SupernodeError as error:
        error.complete(where=raising_line(error), module=sites.raised_in)
        raise
    except Exception as error:
        refusal = in_terms_of_the_step(error)
        if refusal is None:
            raise
        raise refusal.complete(module=sites.raised_in) from error


def _check_arguments(fakes: dict[str, Tensor]) -> None:
    for name, fake in fakes.items():
        if fake.is_leaf and fake.grad is not None:
            raise CaptureError(
                f"the step leaves a gradient on its argument {name}",
                fix="use torch.autograd.grad and return it",
            )


def _check_sharing(overlapping: list[tuple[str, str]], run: Recording) -> None:
    before = {port.name: value for port, value in run.inputs}
    for pair in overlapping:
        if any(run.updates[name] != before[name] for name in pair):
            raise CaptureError(
                f"{pair[0]} and {pair[1]} share memory, and the step changes it",
                fix="make them one parameter (`a.weight = b.weight`)",
            )


def _result(leaf: Any, recorder: Recorder) -> Any:
    """A value, the node of a host number, or a plain object."""
    if isinstance(leaf, Tensor):
        return recorder.tensors.value_of(leaf)
    return leaf.node if isinstance(leaf, HostFloat) else leaf


@contextmanager
def _patches(run: Recording, sites: Sites) -> Generator[None]:
    """What behaves differently while a step is recorded."""
    with ExitStack() as stack:
        for each in (
            sites.tracking(),
            run.schedule.recording(),
            symbolic_items(),
            checks.recording(run.recorder.checks, run.recorder.host),
            both_ways(run.recorder.tensors, run.recorder.host),
            compat.no_checkpointing(sites.region),
            compat.plain_recurrence(),
            compat.looking_real(run.recorder.tensors.is_unknown),
            compat.patched(torch.autocast, "__enter__", _enter_autocast),
            compat.patched(torch, "manual_seed", _refuse_seed),
            compat.patched(torch, "set_rng_state", _refuse_seed),
            compat.patched(torch.random, "set_rng_state", _refuse_seed),
            compat.patched(torch, "get_rng_state", _refuse_state),
            _python_random(),
            torch.compiler.set_stance("force_eager"),
            torch.autograd.set_multithreading_enabled(False),
        ):
            stack.enter_context(each)
        yield


def _refuse_seed(seed: Any) -> None:
    raise CaptureError(
        "the step sets the state of the random generator",
        where=user_line(),
        fix="seed outside of the step",
    )


def _refuse_state() -> None:
    raise CaptureError(
        "the step reads the state of the random generator",
        where=user_line(),
        fix="read it outside of the step",
    )


@contextmanager
def _python_random() -> Generator[None]:
    """Refuses a step that draws from the generators of Python or NumPy."""
    before = _generators()
    yield
    for name, state in _generators().items():
        if before[name] != state:
            raise CaptureError(
                f"the step draws numbers from {name}, which would be the same in every step",
                fix="draw from torch (torch.rand), or pass the number as an argument",
            )


def _generators() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    state = None if numpy is None else repr(numpy.random.get_state(legacy=True))
    return {"Python's random": random.getstate(), "numpy.random": state}


_plain_enter = torch.autocast.__enter__


def _enter_autocast(autocast: torch.autocast) -> Any:
    device = compat.autocast_device(autocast)
    if device not in (None, "cpu"):
        raise CaptureError(
            f"autocast for {device}: a step is recorded as for the CPU",
            where=user_line(),
            fix='use torch.autocast("cpu", dtype=torch.bfloat16); it runs on any chip',
        )
    return _plain_enter(autocast)
