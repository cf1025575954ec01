"""What a step or a load is given, against what the plan expects; refused before anything runs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from supernode.errors import InputError, near_matches
from supernode.ir import HostType, Program, Role, TensorType, Type


class Expected:
    """The inputs of some roles, and what a value for each must be."""

    def __init__(self, program: Program, roles: tuple[Role, ...]) -> None:
        self.types: dict[str, Type] = {
            port.name: value.type
            for port, value in zip(program.inputs, program.main.inputs, strict=True)
            if port.role in roles
        }
        self._fast = {
            name: (getattr(torch, type.dtype), torch.Size(type.shape))
            for name, type in self.types.items()
            if isinstance(type, TensorType)
        }

    def check(self, given: Mapping[str, object]) -> None:
        """Every given value is expected, and fits.

        Raises:
            InputError: with the name, what was expected and what came.
        """
        for name, value in given.items():
            fast = self._fast.get(name)
            if (
                fast is None
                or not isinstance(value, Tensor)
                or (value.dtype, value.shape) != fast
                or value.is_meta
                or value.layout is not torch.strided
            ):
                self._check(name, value)

    def check_all(self, given: Mapping[str, object]) -> None:
        """As `check`, and none is missing."""
        self.check(given)
        missing = [name for name in self.types if name not in given]
        if missing:
            shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
            wrong = f"{len(given)} of {len(self.types)} inputs are given"
            raise InputError(wrong, fix=f"add {shown}")

    def _check(self, name: str, value: object) -> None:
        if name not in self.types:
            fix = near_matches(name, self.types) if self.types else "the step takes none"
            raise InputError(f"the step has no input named {name!r}", fix=fix)
        type, kind = self.types[name], value.__class__.__name__
        if isinstance(type, HostType):
            if not isinstance(value, float | int):
                raise InputError(f"{name} must be a number, not {kind}")
            return
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor, {type}, not {kind}")
        got = TensorType(str(value.dtype).removeprefix("torch."), tuple(value.shape))
        if got != type:
            fix = "the step was planned for this shape and dtype; compile it anew for others"
            raise InputError(f"{name} is {got}, expected {type}", fix=fix)
        if value.is_meta or value.layout is not torch.strided:
            what = (
                "has no data (device meta)" if value.is_meta else f"is laid out as {value.layout}"
            )
            raise InputError(f"{name} {what}", fix="give a dense tensor with data")
