"""Runs a captured step and plain PyTorch side by side."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from drawn import Drawing
from supernode.capture import Captured, capture
from supernode.kernels import generate


@dataclass(kw_only=True)
class Job:
    """A model, its optimizers and a step over both; made twice, for the two ways to run it."""

    model: nn.Module
    optimizers: list[Optimizer]
    step: Callable[..., Any]
    args: tuple[Any, ...]
    between: Callable[[], None] = field(default=lambda: None)


def run_captured(captured: Captured, args: tuple[Any, ...], steps: int, between: Any) -> list[Any]:
    """Results of `steps` steps through generated code; trained values are written back."""
    program = captured.program
    run = generate(program)
    values = captured.inputs()
    results: list[Any] = []
    for _ in range(steps):
        values |= captured.host_values()
        values |= captured.bind(*args)
        outputs = run([values[port.name] for port in program.inputs])
        results.append(captured.result(outputs))
        for port, output, source in zip(program.outputs, outputs, program.updates, strict=True):
            if source is not None:
                values[port.name] = output
        captured.after_step()
        between()
    captured.write_back({p.name: values[p.name] for p in program.outputs if p.role != "result"})
    return results


def run_once(captured: Captured, *args: Any, **kwargs: Any) -> Any:
    """The result of one step; nothing is written back."""
    values = captured.inputs() | captured.bind(*args, **kwargs)
    outputs = generate(captured.program)([values[p.name] for p in captured.program.inputs])
    return captured.result(outputs)


def snapshot(job: Job) -> dict[str, Any]:
    """All that a capture must leave alone."""
    return {
        "model": {k: v.clone() for k, v in job.model.state_dict(keep_vars=True).items()},
        "types": [type(p) for p in job.model.parameters()],
        "ids": [id(p) for p in job.model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in job.model.parameters()],
        "groups": [
            [{k: v for k, v in g.items() if k != "params"} for g in o.param_groups]
            for o in job.optimizers
        ],
        "states": [copy.deepcopy(list(o.state.values())) for o in job.optimizers],
        "attributes": [sorted(vars(m)) for m in job.model.modules()],
        "training": [m.training for m in job.model.modules()],
    }


def same(a: Any, b: Any) -> bool:
    """Equality of nested containers of tensors, bit for bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def assert_exact(make: Callable[[], Job], steps: int = 3) -> Captured:
    """Asserts that capture leaves everything as it was and the captured step is bit-exact.

    Plain PyTorch draws our random numbers.
    """
    torch.manual_seed(0)
    ours = make()
    torch.manual_seed(0)
    plain = make()
    before = snapshot(ours)
    captured = capture(ours.step, ours.model, ours.optimizers, ours.args)
    assert same(before, snapshot(ours)), "the capture changed something of the user"
    got = run_captured(captured, ours.args, steps, ours.between)
    want: list[Any] = []
    for number in range(steps):
        with Drawing(captured.seed, number):
            want.append(plain.step(*plain.args))
        plain.between()
    assert same(got, [_detached(each) for each in want]), "results differ"
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), f"{name} differs"
    for mine, theirs in zip(ours.optimizers, plain.optimizers, strict=True):
        assert same(_plain(mine.state_dict()), _plain(theirs.state_dict())), "state differs"
    return captured


def _detached(result: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, result)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    return {"state": state["state"], "lr": [g["lr"] for g in state["param_groups"]]}
