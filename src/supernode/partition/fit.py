"""The Plan that fits a memory: as little computed again, as little elsewhere as that takes."""

from collections.abc import Callable
from functools import partial

from supernode.errors import DoesNotFit
from supernode.ir import Program
from supernode.partition.line import RECOMPUTE, parse_line
from supernode.partition.offload import ALL, OFFLOAD
from supernode.partition.partition import partition
from supernode.partition.recompute import FULL, MODEL
from supernode.plan import MemoryUse, Plan
from supernode.units import format_bytes

LIMITS = [str(2**power) for power in range(2, 17)]
"""The FLOP that may be spent for each byte not held, from what is nearly free on."""
ELSEWHERE = ("optimizer", "optimizer+gradients", "optimizer+parameters+gradients", ALL)
"""What may be offloaded, by how much is moved for it."""
SHOWN_PARTS = 3
Fits = Callable[[Plan], bool]


def partition_within(
    program: Program,
    layout: str,
    memory_bytes: float,
    chips: int | None = None,
    *,
    in_place: bool = True,
    with_software: Fits | None = None,
) -> Plan:
    """The Plan whose peak memory per chip is at most `memory_bytes`, with the least recomputation.

    What is cheapest to compute again for each byte not held is so first. Where that is not enough
    all is, and values are offloaded, those first for which least is moved. A layout that says
    `recompute=` or `offload=` itself keeps to that. `in_place` as in `Plan.memory`. Where software
    holds more than tensors, `with_software` is asked too, of plans whose tensors fit.

    Raises:
        LayoutError, UnknownOp: as `partition`.
        DoesNotFit: even when all that can be is computed again and offloaded; with what the plan
            needs that needs least.
    """
    line = parse_line(layout, chips)
    plan = partition(program, layout, chips)
    modes = [*LIMITS, FULL] if line.recompute == MODEL else []
    places = ELSEWHERE if line.offload is None else ()
    most = f"{RECOMPUTE}={FULL}" if modes else ""

    needed: list[tuple[MemoryUse, Plan]] = []

    def fits(tried: Plan) -> bool:
        use = tried.memory(in_place=in_place).fullest
        needed.append((use, tried))
        within = use.peak_bytes <= memory_bytes
        return within and (with_software is None or with_software(tried))

    again = partial(_with, program, chips, layout)
    if fits(plan):
        return plan
    if modes and fits(plan := again(most)):
        low, high = 0, len(modes) - 1
        while low < high:
            middle = (low + high) // 2
            tried = again(f"{RECOMPUTE}={modes[middle]}")
            if fits(tried):
                plan, high = tried, middle
            else:
                low = middle + 1
        return plan
    for mode in modes[:-1:4]:  # while it runs again, what needs most may hold more than it saves
        if fits(plan := again(f"{RECOMPUTE}={mode}")):
            return plan
    for kinds in places:
        plan = again(most, f"{OFFLOAD}={kinds}")
        if fits(plan):
            return plan
    least, plan = min(needed, key=lambda each: each[0].peak_bytes)
    raise _misfit(plan, memory_bytes, least)


def _with(program: Program, chips: int | None, *words: str) -> Plan:
    return partition(program, ",".join(filter(None, words)), chips)


def check_fits(plan: Plan, memory_bytes: float, *, in_place: bool = False) -> Plan:
    """`plan` itself if no chip needs more than `memory_bytes`.

    Raises:
        DoesNotFit: with what is needed, and for what.
    """
    use = plan.memory(in_place=in_place).fullest
    if use.peak_bytes <= memory_bytes:
        return plan
    raise _misfit(plan, memory_bytes, use)


def _misfit(plan: Plan, memory_bytes: float, use: MemoryUse) -> DoesNotFit:
    parts = sorted(use.parts.items(), key=lambda part: -part[1])[:SHOWN_PARTS]
    held = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts if size)
    beside = "" if use.peak_bytes > memory_bytes else ", beside what software holds"
    return DoesNotFit(
        f"{plan.program.name} needs {format_bytes(use.peak_bytes)} on each chip{beside}, "
        f"{format_bytes(memory_bytes)} are allowed; most for {held}",
        asked=f"layout {plan.layout or '(none)'}",
        fix=f"{RECOMPUTE}={FULL}, {OFFLOAD}={ALL}, micro=N, more chips, or a layout that keeps "
        "state in parts (fsdp, zero1, tp)",
    )
