"""How long a collective takes, level by level of the machine.

A group of chips along one mesh axis meets the levels of a machine in tiers: within a node, then
across nodes. A collective reduces or gathers tier by tier, the innermost on the whole data, each
next one on the share that is left to a chip; or all at once, through the outermost level. At each
tier the cheapest algorithm is taken (`comm/gather.py`, `comm/exchange.py`). A library that was
measured cuts the data into chunks, so that its tiers run side by side on different chunks: the
slowest decides, and the others add their start. Tiers on the same links take turns.

Groups that run side by side do not slow each other: every chip has its own links into a level,
and the levels of these machines do not narrow towards the top.

**Source:** Cho et al., "BlueConnect", MLSys 2019 (tier by tier); Hu et al., "Demystifying NCCL",
2025 (chunks).
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from supernode.ir import Op, Value
from supernode.machine import Kind, Machine
from supernode.simulate.comm.exchange import exchange
from supernode.simulate.comm.gather import gather, one_shot, reduce
from supernode.simulate.comm.parts import Parts, cheapest, total
from supernode.simulate.comm.tiers import Tier, tiers
from supernode.simulate.timing import Timing, timing

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
COLLECTIVES: tuple[Collective, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
)

COLLECTIVE_OF: Mapping[str, Collective] = {
    **{f"fabric.{name}": name for name in COLLECTIVES},
    **dict.fromkeys(("fabric.all_to_all_rows", "fabric.dispatch", "fabric.combine"), "all_to_all"),
}
"""The collective of each `fabric.*` op; sizes of routed rows are those of balanced routing."""


def carried(op: Op) -> tuple[Value, ...]:
    """The values whose bytes a `fabric.*` op moves: its inputs, for all-gather its outputs."""
    if op.name == "fabric.all_gather":
        return op.outputs
    # The numbers of rows for each chip are not sent with them.
    return op.inputs[: len(op.outputs)]


def sent_bytes(collective: Collective, data_bytes: float, size: int) -> float:
    """What each chip of a group of `size` sends; `data_bytes` as in `collective_time`."""
    times = 2 if collective == "all_reduce" else 1
    return times * data_bytes * (size - 1) / size


def sent_by_level(
    collective: Collective, data_bytes: float, *, machine: Machine, stride: int, size: int
) -> dict[str, float]:
    """`sent_bytes` by the name of the level they cross, innermost first.

    An all-to-all sends each chip its part directly; the others go tier by tier, each next one with
    the share that is left to a chip.
    """
    times = 2 if collective == "all_reduce" else 1
    sent: dict[str, float] = {}
    inside = 1
    for tier in tiers(machine, stride=stride, size=size):
        share = (tier.factor - 1) / (inside * tier.factor)
        if collective == "all_to_all":
            share = inside * (tier.factor - 1) / size
        sent[tier.level.name] = times * data_bytes * share
        inside *= tier.factor
    return sent


def collective_time(
    collective: Collective,
    data_bytes: float,
    *,
    machine: Machine,
    stride: int,
    size: int,
    small_at_once: bool = False,
) -> Timing:
    """The time of one collective over each group of `size` chips, `stride` apart.

    `data_bytes` is the data of one chip: its whole input, for all-gather its whole output.
    Its bound is the time to send those bytes over all its links at the datasheet's rates; an
    all-reduce counts once, as switches may do the sum. `small_at_once` is for stacks that bring
    kernels of their own to add small arrays in one step (serving ones do), where that is faster.
    """
    if size == 1:
        return timing((), 0.0)
    ways = [tiers(machine, stride=stride, size=size)]
    if len(ways[0]) > 1:  # or all at once, through the outermost level
        ways.append((Tier(ways[0][-1].level, size),))
    found = [_way(collective, data_bytes, way, machine) for way in ways]
    if small_at_once and collective == "all_reduce" and len(ways[0]) == 1:
        found += filter(None, [one_shot(data_bytes, tier) for tier in ways[0]])
    transfer = cheapest(found)
    rates = (_fastest(ways[0], plane) for plane in _planes(ways[0]))
    return timing(transfer, data_bytes * (size - 1) / size / sum(rates))


def _fastest(way: tuple[Tier, ...], plane: tuple[int, ...]) -> float:
    return max(way[at].level.bandwidth_bytes_per_s.value for at in plane)


def _way(
    collective: Collective, data_bytes: float, way: tuple[Tier, ...], machine: Machine
) -> Parts:
    steps = tuple(_steps(collective, data_bytes, way))
    start = _start(way, machine)
    if any(tier.level.transport is None for tier in way) or collective == "all_to_all":
        return (*(part for step in steps for part in step), start)
    idle = tuple(_steps(collective, 0.0, way))
    planes = tuple(_planes(way))
    longest = max(planes, key=lambda plane: sum(total(steps[at]) for at in plane))
    busy = (part for at in longest for part in steps[at])
    others = (part for at, step in enumerate(idle) if at not in longest for part in step)
    return (*busy, *others, start)


def _planes(way: tuple[Tier, ...]) -> Iterator[tuple[int, ...]]:
    """The positions of tiers that share their links."""
    plane: tuple[int, ...] = ()
    for at, tier in enumerate(way):
        if plane and not tier.level.same_links:
            yield plane
            plane = ()
        plane = (*plane, at)
    yield plane


def _steps(collective: Collective, data_bytes: float, way: tuple[Tier, ...]) -> list[Parts]:
    if collective == "all_to_all":
        return list(exchange(data_bytes, way))
    steps: list[Parts] = []
    left_bytes = data_bytes
    for tier in way:
        steps.append((reduce if collective == "all_reduce" else gather)(left_bytes, tier))
        left_bytes /= tier.factor
    return steps


def _start(way: tuple[Tier, ...], machine: Machine) -> tuple[float, Kind]:
    """The library's start, once: of the level that takes longest, at least a launch."""
    launch = machine.chip.launch_overhead_s
    starts: list[tuple[float, Kind]] = [(launch.value, launch.kind)]
    for tier in way:
        fit = tier.level.transport
        if fit is not None:
            starts.append((fit["start_s"], fit.any.kind))
    return max(starts, key=lambda start: start[0])
