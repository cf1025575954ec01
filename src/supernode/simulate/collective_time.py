"""How long a collective takes, level by level of the machine.

A group of chips along one mesh axis meets the levels of a machine in tiers: within a node, then
across nodes. A collective reduces or gathers tier by tier, the innermost on the whole data, each
next one on the share that is left to a chip. At each tier the cheaper of two ways is taken:

- *ring*: n - 1 steps between neighbours;
- *direct*: one step, every chip to every other, where each pair has a path.

Both send the same bytes: (n - 1)/n of the data for all-gather, reduce-scatter and all-to-all,
twice that for all-reduce. Recursive halving is not among them: it needs log2 n steps over the
paths that direct uses in one.

Groups that run side by side do not slow each other: every chip has its own links into a level,
and the levels of these machines do not narrow towards the top.

**Source:** Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations
in MPICH", IJHPCA 19(1), 2005; hierarchical form: Cho et al., "BlueConnect", MLSys 2019.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from supernode.machine import Kind, Level, Machine, Topology
from supernode.simulate.timing import Timing, timing, weakest

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
COLLECTIVES: tuple[Collective, ...] = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
)

Parts = tuple[tuple[float, Kind], ...]

_LINKS_TO_A_PEER: Mapping[Topology, int] = {"mesh": 1, "cube-mesh": 2}
"""At most; on a switch all links lead to every peer."""


@dataclass(frozen=True, slots=True)
class Tier:
    """`factor` members of a group, each one chip or one subgroup, that meet at `level`."""

    level: Level
    factor: int


def tiers(machine: Machine, *, stride: int, size: int) -> tuple[Tier, ...]:
    """How a group of `size` chips, `stride` apart, meets the levels; the factors give `size`.

    A level whose groups the members do not fill evenly is passed over: its members meet higher up.

    Raises:
        LayoutError: the group is wider than the machine.
    """
    spanning = machine.level_spanning(stride * size)
    found: list[Tier] = []
    inside = 1
    for level in machine.levels:
        members = size if level is spanning else _members(level, stride, size)
        if members > inside and members % inside == 0 and size % members == 0:
            found.append(Tier(level, members // inside))
            inside = members
        if level is spanning:
            break
    return tuple(found)


def _members(level: Level, stride: int, size: int) -> int:
    return min(level.chips // stride, size) if level.chips % stride == 0 else 1


def sent_bytes(collective: Collective, data_bytes: float, size: int) -> float:
    """What each chip of a group of `size` sends; `data_bytes` as in `collective_time`."""
    times = 2 if collective == "all_reduce" else 1
    return times * data_bytes * (size - 1) / size


def collective_time(
    collective: Collective, data_bytes: float, *, machine: Machine, stride: int, size: int
) -> Timing:
    """The time of one collective over each group of `size` chips, `stride` apart.

    `data_bytes` is the data of one chip: its whole input, for all-gather its whole output.
    Its bound is the time to send those bytes over the fastest level at the datasheet's rate; an
    all-reduce counts once, as switches may do the sum.
    """
    if size == 1:
        return timing((), 0.0)
    ways = [tiers(machine, stride=stride, size=size)]
    if len(ways[0]) > 1:  # or all at once, through the outermost level
        ways.append((Tier(ways[0][-1].level, size),))
    transfer = min((_tiered(collective, data_bytes, way) for way in ways), key=_total)
    launch = machine.chip.launch_overhead_s
    fastest = max(tier.level.bandwidth_bytes_per_s.value for way in ways for tier in way)
    bound_s = data_bytes * (size - 1) / size / fastest
    return timing((*transfer, (launch.value, launch.kind)), bound_s)


def _tiered(collective: Collective, data_bytes: float, way: tuple[Tier, ...]) -> Parts:
    if collective == "all_to_all":
        return tuple(part for step in _exchanges(data_bytes, way) for part in step)
    times = 2 if collective == "all_reduce" else 1
    parts: Parts = ()
    left_bytes = data_bytes
    for tier in way:
        parts += times * _gather(left_bytes * (tier.factor - 1) / tier.factor, tier)
        left_bytes /= tier.factor
    return parts


def _gather(moved_bytes: float, tier: Tier) -> Parts:
    """A reduce-scatter or all-gather in which each member sends `moved_bytes`, the cheaper way."""
    peers = tier.factor - 1
    if tier.level.topology == "cube-mesh":  # rings over all links of the pairs, no direct way
        return _steps(moved_bytes, tier.level, peers=peers, steps=peers)
    ring = _steps(moved_bytes, tier.level, peers=min(peers, 2), steps=peers)
    return min(ring, _steps(moved_bytes, tier.level, peers=peers, steps=1), key=_total)


def _exchanges(data_bytes: float, way: tuple[Tier, ...]) -> Iterator[Parts]:
    """An all-to-all: at each tier what goes to the chips that are first met there."""
    size, inside = 1, 1
    for tier in way:
        size *= tier.factor
    for tier in way:
        moved_bytes = data_bytes * inside * (tier.factor - 1) / size
        # Many pairs of a cube mesh have no link: what they send crosses two.
        hops = 2 if tier.level.topology == "cube-mesh" else 1
        yield _steps(hops * moved_bytes, tier.level, peers=tier.factor - 1, steps=hops)
        inside *= tier.factor


def _steps(moved_bytes: float, level: Level, *, peers: int, steps: int) -> Parts:
    """`moved_bytes` from each chip in `steps` messages, over the links that lead to `peers`."""
    links = peers * _LINKS_TO_A_PEER.get(level.topology, level.links)
    share = min(links / level.links, 1.0)
    bandwidth, efficiency = level.bandwidth_bytes_per_s, level.efficiency
    wire_s = moved_bytes / (share * bandwidth.value * efficiency.value)
    latency = level.latency_s
    return ((wire_s, weakest((bandwidth, efficiency))), (steps * latency.value, latency.kind))


def _total(parts: Parts) -> float:
    return sum(time_s for time_s, _ in parts)
