"""What torch's schema of an op says; the one file that reads these private parts of torch."""

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
