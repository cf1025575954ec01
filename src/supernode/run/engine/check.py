"""What a step or a load is given, against what the plan expects; refused before anything runs."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from supernode.errors import InputError, near_matches
from supernode.ir import HostType, Program, Role, TensorType


def check_values(
    program: Program, roles: Iterable[Role], given: Mapping[str, object], *, complete: bool
) -> None:
    """Every given value has a port of one of `roles`, its shape and its dtype.

    Raises:
        InputError: a name is unknown, a value is missing (if all must be there) or does not fit.
    """
    wanted = {
        port.name: value.type
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        if port.role in roles
    }
    for name in given:
        if name not in wanted:
            fix = near_matches(name, wanted) if wanted else "the step takes none"
            raise InputError(f"the step has no input named {name!r}", fix=fix)
    missing = [name for name in wanted if name not in given]
    if complete and missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise InputError(f"{len(given)} of {len(wanted)} inputs are given", fix=f"add {shown}")
    for name, value in given.items():
        _check(name, value, wanted[name])


def _check(name: str, value: object, type: TensorType | HostType) -> None:
    if isinstance(type, HostType):
        if not isinstance(value, float | int):
            raise InputError(f"{name} must be a number, not {_kind(value)}")
        return
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a tensor, {type}, not {_kind(value)}")
    got = TensorType(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    if got != type:
        fix = "the step was planned for this shape and dtype; compile it anew for others"
        raise InputError(f"{name} is {got}, expected {type}", fix=fix)


def _kind(value: object) -> str:
    return value.__class__.__name__
