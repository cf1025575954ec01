"""All-to-all: every member has a different part for every other.

Over several tiers, at each tier what goes to the chips that are first met there. A library sends a
message to each peer, which costs `peer_s` each; small messages go by a slower way that starts
sooner.

**Source:** Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005, section 4.4 (pairwise exchange).
"""

from collections.abc import Iterator

from supernode.machine import Fit, Level
from supernode.simulate.comm.gather import share_of
from supernode.simulate.comm.parts import Parts, part, wire
from supernode.simulate.comm.tiers import Tier


def exchange(data_bytes: float, way: tuple[Tier, ...]) -> Iterator[Parts]:
    """An all-to-all in which each chip has `data_bytes` for all, one Parts a tier."""
    size, inside = 1, 1
    for tier in way:
        size *= tier.factor
    for tier in way:
        moved = data_bytes * inside * (tier.factor - 1) / size
        yield _over(moved, tier.level, peers=inside * (tier.factor - 1), links=tier.factor - 1)
        inside *= tier.factor


def _over(moved: float, level: Level, *, peers: int, links: int) -> Parts:
    # Many pairs of a cube mesh have no link: what they send crosses two.
    hops = 2 if level.topology == "cube-mesh" else 1
    fit = level.transport
    if fit is None:
        latency = level.latency_s
        share = share_of(level, links)
        return (wire(hops * moved, level, share), (hops * latency.value, latency.kind))
    return (part(_messages_s(hops * moved, level, fit, peers, links), fit),)


def _messages_s(moved: float, level: Level, fit: Fit, peers: int, links: int) -> float:
    rate = share_of(level, links) * level.bandwidth_bytes_per_s.value
    soon = moved / (rate * fit["exchange_share"])
    late = fit["exchange_long_s"] + moved / (rate * fit["exchange_long_share"])
    return fit["exchange_start_s"] + peers * fit["peer_s"] + min(soon, late)
