"""What torch's schema of an op says; the one file that reads these private parts of torch."""

import torch
from torch._ops import OpOverload


def argument_names(overload: OpOverload) -> frozenset[str]:
    """The names of the op's arguments."""
    schema = overload._schema  # pyright: ignore[reportPrivateUsage]
    return frozenset(argument.name for argument in schema.arguments)


def returns_count(overload: OpOverload) -> int | None:
    """How many results the op has; None if it is one list of them (`split`)."""
    returns = overload._schema.returns  # pyright: ignore[reportPrivateUsage]
    one_list = len(returns) == 1 and str(returns[0].type) == "List[Tensor]"
    return None if one_list else len(returns)


def declares_alias(overload: OpOverload) -> bool:
    """Whether a result is a view of an operand, or the operand itself, by the op's own word."""
    returns = overload._schema.returns  # pyright: ignore[reportPrivateUsage]
    return any(result.alias_info is not None for result in returns)


def is_composite(overload: OpOverload) -> bool:
    """Whether the op is made of others on every device.

    Such an op may hand back an operand without saying so (`dropout` outside training).
    """
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key  # pyright: ignore[reportPrivateUsage]
    return has_kernel(overload.name(), "CompositeImplicitAutograd")
