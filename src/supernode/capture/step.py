"""`capture`: an unmodified PyTorch step becomes a Program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from supernode.capture.arguments import Arguments, arguments_of
from supernode.capture.build import build
from supernode.capture.captured import Captured
from supernode.capture.optimizer_state import OptimizerStates, learn
from supernode.capture.record import Recording, record
from supernode.capture.scaler import numbers_of
from supernode.capture.sites import definition_line, user_line
from supernode.capture.subject import Subject, subject_of
from supernode.capture.watch import Watch
from supernode.errors import CaptureError
from supernode.ir import fold as fold_program
from supernode.ir import free_scalars, unify_views


def capture(
    step: Callable[..., Any],
    model: nn.Module | None,
    optimizers: Optimizer | Sequence[Optimizer] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str = "step",
    fold: bool = True,
) -> Captured:
    """`step(*args, **kwargs)` as a Program that gives bit for bit what plain PyTorch gives.

    The step runs once on fake tensors: nothing is computed or allocated (the model may live on
    "meta"), and model, optimizers and gradients are afterwards what they were. Tensors of the
    arguments may differ from call to call, numbers and strings may not. Python code runs at
    capture only: counters, `random` and prints of the step are not repeated. Gradients that no
    later step reads are not kept.

    `model` may be None and `optimizers` empty, for inference or a plain function of tensors.
    Steps that take a multi-tensor or fused optimizer are recorded with its plain loop.

    Raises:
        CaptureError: the step does what can't be recorded exactly; `where` is the user's line.
    """
    # What is found before or after the step runs has no line of the step.
    outside = user_line()
    try:
        return _capture(step, model, optimizers, tuple(args), dict(kwargs or {}), name, fold)
    except CaptureError as error:
        if error.where not in ("", outside):
            raise
        error.where = definition_line(step)
        raise


def _capture(
    step: Callable[..., Any],
    model: nn.Module | None,
    optimizers: Optimizer | Sequence[Optimizer] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    fold: bool,
) -> Captured:
    subject = subject_of(model, optimizers)
    arguments = arguments_of(step, args, kwargs)
    states = learn(subject)
    run, carried = _record(step, subject, states, arguments)
    optional = {entry.name for entry in states.entries if entry.fill is not None}
    optional |= {f"grad[{param}]" for param in carried} | numbers_of(run.scalers).keys()
    built = build(name, run, optional)
    program = free_scalars(unify_views(built.program))
    return Captured(
        program=fold_program(program) if fold else program,
        constants=built.constants,
        subject=subject,
        states=states,
        arguments=arguments,
        schedule=run.schedule,
        scalers=run.scalers,
        watch=Watch.on(subject, run.recorder, run.scalers),
        slots=tuple(built.slots),
        checks=tuple(run.recorder.checks),
        result_spec=run.result_spec,
        seed=torch.initial_seed(),
    )


def _record(
    step: Callable[..., Any], subject: Subject, states: OptimizerStates, arguments: Arguments
) -> tuple[Recording, list[str]]:
    """The recording, with gradients as state where a step reads those of the step before."""
    run = record(step, subject, states, arguments, gradients=[])
    before = [name for name, param in subject.params.items() if param.grad is not None]
    held = [name for name in subject.params if name in before or name in run.kept_gradients]
    if not set(held).intersection(run.stale_gradients):
        return run, []
    run = record(step, subject, states, arguments, gradients=held)
    missing = sorted(set(held).symmetric_difference(run.kept_gradients))
    if missing:
        raise CaptureError(
            f"gradients from before the step are added to in one step and not in the next: "
            f"{', '.join(missing[:3])}",
            fix="call optimizer.zero_grad() first in the step, or before the capture",
        )
    return run, held
