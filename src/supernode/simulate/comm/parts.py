"""Parts: a time, piece by piece, with the kind of number that each piece rests on."""

from collections.abc import Iterable

from supernode.machine import Fit, Kind, Level
from supernode.simulate.timing import weakest

Parts = tuple[tuple[float, Kind], ...]


def total(parts: Parts) -> float:
    """The seconds of all of them, one after the other."""
    return sum(time_s for time_s, _ in parts)


def cheapest(ways: Iterable[Parts]) -> Parts:
    """The way that takes least."""
    return min(ways, key=total)


def part(time_s: float, fit: Fit) -> tuple[float, Kind]:
    """A time that rests on what was measured of a level's library."""
    return time_s, fit.any.kind


def wire(moved_bytes: float, level: Level, share: float) -> tuple[float, Kind]:
    """The time to send bytes over a share of a chip's links, as far as software fills them."""
    bandwidth, efficiency = level.bandwidth_bytes_per_s, level.efficiency
    time_s = moved_bytes / (share * bandwidth.value * efficiency.value)
    return time_s, weakest((bandwidth, efficiency))


def protocols(moved_bytes: float, level: Level, fit: Fit, *, hops: float, share: float) -> Parts:
    """`hops` messages one after the other, by the library's protocol that is fastest for them.

    A protocol that signals with every word starts soon and wastes bandwidth, one that signals by
    chunk is slow to start and fills the links: NCCL calls them LL, LL128 and Simple.

    **Source:** Hu et al., "Demystifying NCCL", 2025 (arXiv 2507.04786), section III.
    """
    rate = share * level.bandwidth_bytes_per_s.value
    return cheapest(
        (part(hops * fit[f"{name}_hop_s"] + moved_bytes / (rate * fit[f"{name}_share"]), fit),)
        for name in ("short", "middle", "long")
    )
