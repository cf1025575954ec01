"""The arguments of a step: which are tensors, what they are called, and what is fixed."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from supernode.capture import compat
from supernode.errors import InputError
from supernode.ir import short_dtype

Leaf = tuple[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """Flattened arguments: `leaves` by name (`tokens`, `batch[input_ids]`), and their structure.

    Numbers and strings are part of the recorded step; only tensors may differ from call to call.
    """

    step: Callable[..., Any]
    leaves: tuple[Leaf, ...]
    spec: Any

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments by name."""
        return {name: leaf for name, leaf in self.leaves if isinstance(leaf, Tensor)}

    def rebuild(self, tensors: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`args, kwargs` with other tensors."""
        leaves = [tensors.get(name, leaf) for name, leaf in self.leaves]
        args, kwargs = compat.unflatten(leaves, self.spec)
        return args, kwargs

    def match(self, other: "Arguments") -> dict[str, Tensor]:
        """The tensors of another call, checked to be one of the recorded step.

        Raises:
            InputError: another structure, shape, dtype or fixed value than at capture.
        """
        if [name for name, _ in other.leaves] != [name for name, _ in self.leaves]:
            raise InputError(
                "the step was captured for other arguments: "
                + ", ".join(name for name, _ in self.leaves),
                asked=", ".join(name for name, _ in other.leaves),
                fix="pass those, or compile the step again",
            )
        for (name, old), (_, new) in zip(self.leaves, other.leaves, strict=True):
            if _kind(old) != _kind(new):
                what = "tensors of this shape and dtype" if isinstance(old, Tensor) else repr(old)
                raise InputError(
                    f"argument {name} is {_kind(new)}, captured as {_kind(old)}",
                    fix=f"compile the step again for it: this one was captured for {what}",
                )
        return other.tensors


def _kind(leaf: Any) -> str:
    if isinstance(leaf, Tensor):
        return f"{short_dtype(str(leaf.dtype).removeprefix('torch.'))}{list(leaf.shape)}"
    return repr(leaf)


def arguments_of(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Arguments:
    """The arguments of `step(*args, **kwargs)`, named after its parameters."""
    names = _names(step, args, kwargs)
    flat, spec = compat.flatten((tuple(args), dict(kwargs)))
    leaves: list[Leaf] = []
    for path, leaf in flat:
        first, rest = _cut(path)
        leaves.append((names[first] + rest, leaf))
    return Arguments(step=step, leaves=tuple(leaves), spec=spec)


def _cut(path: str) -> tuple[str, str]:
    """`[0][2][x]` as `[0][2]` (the argument) and `[x]` (the place in it)."""
    end = path.index("]", path.index("]") + 1) + 1
    return path[:end], path[end:]


def _names(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, str]:
    names = {f"[1][{key}]": key for key in kwargs}
    positional = [f"[0][{i}]" for i in range(len(args))]
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except ValueError:  # a built-in function
        parameters = []
    for i, path in enumerate(positional):
        here = parameters[i] if i < len(parameters) else None
        named = here is not None and here.kind in (here.POSITIONAL_ONLY, here.POSITIONAL_OR_KEYWORD)
        if not named and parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            first = len(parameters) - 1
            names[path] = f"{parameters[-1].name}[{i - first}]"
        else:
            names[path] = here.name if named and here is not None else f"arg{i}"
    return names
