"""The Plan that fits a memory: as few activations computed again as that takes."""

from supernode.errors import DoesNotFit
from supernode.ir import Program
from supernode.partition.line import RECOMPUTE, parse_line
from supernode.partition.partition import partition
from supernode.partition.recompute import FULL, MODEL
from supernode.plan import Plan
from supernode.units import format_bytes

LIMITS = [str(2**power) for power in range(2, 17)]
"""The FLOP that may be spent for each byte not held, from what is nearly free on."""


def partition_within(
    program: Program, layout: str, memory_bytes: float, chips: int | None = None
) -> Plan:
    """The Plan whose peak memory per chip is at most `memory_bytes`, with the least recomputation.

    What is cheapest to compute again for each byte not held is so first. A layout that says
    `recompute=` itself is taken as it is.

    Raises:
        LayoutError, UnknownOp: as `partition`.
        DoesNotFit: even when all that can be is computed again.
    """
    line = parse_line(layout, chips)
    if line.recompute != MODEL:
        return _checked(partition(program, layout, chips), memory_bytes)
    plan = partition(program, layout, chips)
    if _peak(plan) <= memory_bytes:
        return plan
    modes = [*LIMITS, FULL]
    low, high = 0, len(modes) - 1
    best = _again(program, layout, chips, modes[high])
    while low < high:
        middle = (low + high) // 2
        tried = _again(program, layout, chips, modes[middle])
        if _peak(tried) <= memory_bytes:
            best, high = tried, middle
        else:
            low = middle + 1
    return _checked(best, memory_bytes)


def _again(program: Program, layout: str, chips: int | None, mode: str) -> Plan:
    return partition(program, ",".join(filter(None, (layout, f"{RECOMPUTE}={mode}"))), chips)


def _peak(plan: Plan) -> int:
    return plan.memory(in_place=True).peak_bytes


def _checked(plan: Plan, memory_bytes: float) -> Plan:
    if (peak := _peak(plan)) > memory_bytes:
        raise DoesNotFit(
            f"{plan.program.name} needs {format_bytes(peak)} on each chip, "
            f"{format_bytes(memory_bytes)} are allowed",
            asked=f"layout {plan.layout or '(none)'}",
            fix="more chips, micro=N, or a layout that keeps state in parts (fsdp, zero1, tp)",
        )
    return plan
