"""All-gather, reduce-scatter and their sum all-reduce over one level: ring, direct, tree, switch.

Of n members with D bytes each (for an all-gather, D of its result), a gather moves D (n-1)/n:

- *ring*: n - 1 hops between neighbours;
- *direct*: one hop, every member to every other, where each pair has a path of its own;
- *tree* (all-reduce): 2 log2 n hops, two trees at once so that both directions are full;
- *in the switch* (all-reduce): each member sends D once and gets D once, the switch adds.

**Source:** Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005; trees: Sanders, Speck and Träff,
"Two-tree algorithms", Parallel Computing 35(12), 2009; switches: Graham et al., "SHARP", COM-HPC
2016, and NVIDIA's NVLS.
"""

from collections.abc import Iterator, Mapping
from math import ceil, log2

from supernode.machine import Fit, Level, Topology
from supernode.simulate.comm.parts import Parts, cheapest, part, protocols, wire
from supernode.simulate.comm.tiers import Tier

LINKS_TO_A_PEER: Mapping[Topology, int] = {"mesh": 1, "cube-mesh": 2}
"""At most; on a switch all links lead to every peer."""


def gather(data_bytes: float, tier: Tier) -> Parts:
    """A reduce-scatter or all-gather of `data_bytes` over one tier, the cheapest way."""
    moved = data_bytes * (tier.factor - 1) / tier.factor
    return cheapest(_gathers(moved, tier, times=1))


def reduce(data_bytes: float, tier: Tier) -> Parts:
    """An all-reduce of `data_bytes` over one tier, the cheapest way."""
    moved = data_bytes * (tier.factor - 1) / tier.factor
    return cheapest((*_gathers(moved, tier, times=2), *_reductions(data_bytes, tier)))


def one_shot(data_bytes: float, tier: Tier) -> Parts | None:
    """An all-reduce in which each chip sends all it has to every other; None where none does.

    It includes its start: such kernels are no part of the library.
    """
    fit, peers = tier.level.one_shot, tier.factor - 1
    if fit is None:
        return None
    rate = share_of(tier.level, peers) * tier.level.bandwidth_bytes_per_s.value * fit["share"]
    return (part(fit["start_s"] + peers * fit["peer_s"] + peers * data_bytes / rate, fit),)


def _gathers(moved: float, tier: Tier, times: int) -> Iterator[Parts]:
    level, peers = tier.level, tier.factor - 1
    if level.topology == "cube-mesh":  # rings over all links of the pairs, no direct way
        yield times * _hops(moved, level, peers=peers, hops=peers)
        return
    if level.transport is None or level.topology == "mesh":
        yield times * _hops(moved, level, peers=peers, hops=1)
    ring = min(peers, 2)
    if level.transport is None:
        yield times * _hops(moved, level, peers=ring, hops=peers)
    else:
        share = share_of(level, ring)
        yield protocols(times * moved, level, level.transport, hops=times * peers, share=share)


def _reductions(data_bytes: float, tier: Tier) -> Iterator[Parts]:
    level, fit = tier.level, tier.level.transport
    if fit is None:
        return
    rate = level.bandwidth_bytes_per_s.value
    if "tree_share" in fit:
        hops = 2 * ceil(log2(tier.factor))
        moved = 2 * data_bytes * (tier.factor - 1) / tier.factor
        yield protocols(moved, level, fit, hops=hops, share=fit["tree_share"])
    if "switch_share" in fit and tier.factor > 2:
        switch_s = fit["switch_start_s"] + data_bytes / (rate * fit["switch_share"])
        yield (part(switch_s, fit),)


def share_of(level: Level, peers: int) -> float:
    """The part of a chip's links that lead to so many peers; less to one, where libraries say."""
    links = peers * LINKS_TO_A_PEER.get(level.topology, level.links)
    share = min(links / level.links, 1.0)
    fit: Fit | None = level.transport
    return share * fit["pair_share"] if fit is not None and peers == 1 else share


def _hops(moved: float, level: Level, *, peers: int, hops: int) -> Parts:
    """`moved` bytes from each chip in `hops` messages, over the links that lead to `peers`."""
    latency = level.latency_s
    return (wire(moved, level, share_of(level, peers)), (hops * latency.value, latency.kind))
