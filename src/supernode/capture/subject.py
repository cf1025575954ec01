"""What is captured: a model and its optimizers by name; how they become fake and real again."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import LBFGS, Optimizer

from supernode.capture import compat
from supernode.errors import CaptureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and its optimizers; `params` and `buffers` hold each tensor once, by first name."""

    model: nn.Module | None
    optimizers: tuple[Optimizer, ...]
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def names(self) -> dict[int, str]:
        """The name of each parameter by the id of the tensor."""
        return {id(param): name for name, param in self.params.items()}

    def module_names(self) -> dict[int, str]:
        """The path of each module by its id."""
        if self.model is None:
            return {}
        return {id(module): name for name, module in self.model.named_modules()}

    def tensors(self) -> list[Tensor]:
        """All parameters and buffers."""
        return [*self.params.values(), *self.buffers.values()]


def subject_of(
    model: nn.Module | None, optimizers: Optimizer | Sequence[Optimizer] | None
) -> Subject:
    """Names what is captured.

    Raises:
        CaptureError: a kind of optimizer or tensor that can't be captured, or a trained parameter
            that is not part of the model.
    """
    listed = (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers or ())
    params: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    if model is not None:
        params.update(model.named_parameters())
        buffers.update(model.named_buffers())
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise CaptureError(
            f"the model is wrapped in {type(model).__name__}",
            fix="pass the plain module, and use it in the step: supernode distributes it",
        )
    subject = Subject(model=model, optimizers=listed, params=params, buffers=buffers)
    for name, tensor in (*params.items(), *buffers.items()):
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            raise CaptureError(
                f"{name} is of type {type(tensor).__name__}, not a plain tensor",
                fix="call the model once before: lazy modules learn their sizes then"
                if is_lazy(tensor)
                else "make the model of plain parameters: supernode distributes it",
            )
        if tensor.layout != torch.strided:
            raise CaptureError(
                f"{name} is not a dense tensor but {tensor.layout}", fix="call .to_dense() on it"
            )
    for optimizer in listed:
        _check_optimizer(optimizer, subject)
    return subject


def _check_optimizer(optimizer: Optimizer, subject: Subject) -> None:
    if isinstance(optimizer, LBFGS):
        raise CaptureError(
            "LBFGS runs the step several times, as often as the loss demands",
            fix="use an optimizer that needs one gradient a step",
        )
    names = subject.names()
    for group in optimizer.param_groups:
        for param in group["params"]:
            if id(param) not in names:
                raise CaptureError(
                    f"{type(optimizer).__name__} trains a parameter of shape "
                    f"{list(param.shape)} that is not part of the model",
                    fix="pass all trained modules as one model, e.g. nn.ModuleList([a, b])",
                )


def sharing(subject: Subject) -> list[tuple[str, str]]:
    """Pairs of different parameters or buffers that overlap in memory, by name."""
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for name, tensor in (*subject.params.items(), *subject.buffers.items()):
        if tensor.numel() and not tensor.is_meta:
            start = int(tensor.storage_offset()) * tensor.itemsize
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            span = (start, start + (last + 1) * tensor.itemsize, name)
            spans.setdefault(compat.storage_key(tensor), []).append(span)
    return [
        (first, second)
        for each in map(sorted, spans.values())
        for (_, end, first), (start, _, second) in pairwise(each)
        if start < end
    ]


@contextmanager
def made_fake(subject: Subject, mode: Any) -> Generator[None]:
    """Turns the very tensor objects of model and optimizers into fakes, and back on leaving.

    Whoever holds a parameter (a closure, a list for clipping) holds a fake meanwhile. Attributes
    of modules and optimizers, parameter groups and gradients are afterwards what they were.
    """
    with ExitStack() as stack:
        for module in subject.model.modules() if subject.model is not None else ():
            registries = [(table, dict(table)) for table in compat.registries(module)]
            stack.callback(_restore_module, module, dict(module.__dict__), registries)
        for optimizer in subject.optimizers:
            groups = [(group, dict(group)) for group in optimizer.param_groups]
            stack.callback(_restore_optimizer, optimizer, dict(optimizer.__dict__), groups)
        for tensor in subject.tensors():
            other = compat.fake_like(mode, tensor)
            compat.copy_hooks(tensor, other)
            compat.swap_contents(tensor, other)
            stack.callback(compat.swap_contents, tensor, other)
        yield


def _restore_module(
    module: nn.Module,
    attributes: dict[str, Any],
    registries: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    module.__dict__.clear()
    module.__dict__.update(attributes)
    for table, content in registries:
        table.clear()
        table.update(content)


def _restore_optimizer(
    optimizer: Optimizer,
    attributes: dict[str, Any],
    groups: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    optimizer.__dict__.clear()
    optimizer.__dict__.update(attributes)
    optimizer.param_groups[:] = [group for group, _ in groups]
    for group, content in groups:
        group.clear()
        group.update(content)
