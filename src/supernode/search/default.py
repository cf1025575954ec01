"""The layout used when none is given: the batch is split, and state too once it is large.

A rule, not a search: split the batch over as many chips as divide it; what is left of the chips
splits weights (tensor parallel). Where that leaves no equal parts, over as many chips as there are
samples, in unequal ones. If a whole copy of the state would take more than a share of a chip's
memory, it is kept in parts over as many of the batch's chips as its dims divide by.
"""

import math

from supernode.errors import LayoutError
from supernode.ir import Program
from supernode.partition.assign import batch_classes
from supernode.partition.classes import Classes
from supernode.partition.matrices import inner_classes

STATE_SHARE = 0.25
"""State beyond this share of a chip's memory is kept in parts; the rest is for activations."""


def default_layout(program: Program, chips: int, capacity_bytes: float = math.inf) -> str:
    """A layout line for `program` on `chips` chips of `capacity_bytes` memory each.

    Raises:
        LayoutError: the batch and the weights do not split in `chips` parts.
        UnknownOp: more than one chip, and an op has no row in the op table.
    """
    if chips == 1:
        return ""
    batch, inner = _divisors(program)
    split = _evenly(chips, batch, inner) or _unevenly(chips, batch, inner)
    if split is None:
        raise LayoutError(
            f"no default layout for {chips} chips: the batch splits in at most {batch} parts and "
            f"the weights in {inner}",
            fix=f"use at most {batch} chips (or {batch} x a divisor of {inner}), a larger batch, "
            "or give a layout",
        )
    over_batch, over_inner = split
    parts = 1
    if _state_bytes(program) / over_inner > STATE_SHARE * capacity_bytes:
        parts = _largest_parts(program, over_batch)
    sizes = {"dp": over_batch // parts, "fsdp": parts, "tp": over_inner}
    return ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1)


def usable_chips(program: Program, chips: int) -> int:
    """The largest number of chips, at most `chips`, that has a default layout of equal parts.

    More would wait for those with the largest.
    """
    batch, inner = _divisors(program)
    return next(n for n in range(chips, 0, -1) if _evenly(n, batch, inner) is not None)


def _divisors(program: Program) -> tuple[int, int]:
    """In how many equal parts the batch and the inner dims of the weights can be cut."""
    classes = Classes(program)
    batch = inner = 0
    for place in batch_classes(program, classes):
        batch = math.gcd(batch, classes.divisor(place) or 1)
    for place in inner_classes(program, classes):
        inner = math.gcd(inner, classes.divisor(place))
    return batch or 1, inner or 1


def _evenly(chips: int, batch: int, inner: int) -> tuple[int, int] | None:
    """How many chips split the batch and how many the weights, in equal parts."""
    over_batch = math.gcd(chips, batch)
    over_inner = chips // over_batch
    return (over_batch, over_inner) if inner % over_inner == 0 else None


def _unevenly(chips: int, batch: int, inner: int) -> tuple[int, int] | None:
    """The same with some chips having one part more than others."""
    for over_batch in range(min(chips, batch), 0, -1):
        if chips % over_batch == 0 and chips // over_batch <= inner:
            return over_batch, chips // over_batch
    return None


def _state_bytes(program: Program) -> int:
    return sum(
        value.type.size_bytes
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        if port.role in ("param", "buffer", "state")
    )


def _largest_parts(program: Program, chips: int) -> int:
    """The largest divisor of `chips` that divides some dim of every weight but the tiniest."""
    shapes = [
        value.tensor.shape
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        if port.role in ("param", "state")
    ]

    def divides(parts: int) -> bool:
        return all(
            any(size % parts == 0 for size in shape) or math.prod(shape) < parts for shape in shapes
        )

    return next(n for n in range(chips, 0, -1) if chips % n == 0 and divides(n))
