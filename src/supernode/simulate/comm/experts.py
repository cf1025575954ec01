"""Dispatch and combine: tokens to their experts and back, by the kernels made for that.

A chip has a copy of each token for every expert that the router picked. The kernels of a decode
step (low latency) send every copy by itself, straight to its chip, over all levels at once. Those
of prefill and training (high throughput) send a token once to each node and once to each chip that
holds any of its experts: of n groups, c experts picked evenly are in n (1 - (1 - 1/n)^c). Before
either, all ranks say what they will send: a doubling of the ranks is a round more.

**Source:** DeepSeek-AI, DeepEP (README, both modes); "Serving Large Language Models on Huawei
CloudMatrix384", 2025, section 4.2.1 (fused dispatch and combine).
"""

from collections.abc import Iterator
from math import log2
from typing import Literal

from supernode.machine import Kind, Level, Machine
from supernode.simulate.comm.parts import part, wire
from supernode.simulate.comm.tiers import Tier, tiers
from supernode.simulate.timing import Timing, timing

Way = Literal["dispatch", "combine"]


def experts_time(
    way: Way,
    data_bytes: float,
    *,
    copies: int,
    once: bool,
    machine: Machine,
    stride: int,
    size: int,
) -> Timing:
    """The time to send tokens to experts spread over `size` chips, or their results back.

    `data_bytes` is what one chip has for all `copies` of its tokens. `once` is for kernels that
    send a token once to a group that holds several of its experts.
    """
    if size == 1:
        return timing((), 0.0)
    found = tiers(machine, stride=stride, size=size)
    start = _start(way, found, machine, size)
    moved = tuple(_moved(data_bytes, copies, once, found))
    wires = [_wire(way, sent, tier) for sent, tier in zip(moved, found, strict=True)]
    longest = max(wires, key=lambda wired: wired[0])
    rates = (tier.level.bandwidth_bytes_per_s.value for tier in found)
    bound_s = max(sent / rate for sent, rate in zip(moved, rates, strict=True))
    return timing((longest, start), bound_s)


def _moved(data_bytes: float, copies: int, once: bool, found: tuple[Tier, ...]) -> Iterator[float]:
    """What a chip sends over each tier."""
    size = 1
    for tier in found:
        size *= tier.factor
    inside = 1
    token_bytes = data_bytes / copies
    for tier in found:
        if once:  # once to each of the groups there are, of which this tier reaches factor - 1
            groups = size // inside
            met = groups * (1 - (1 - 1 / groups) ** copies)
            yield token_bytes * met * (tier.factor - 1) / tier.factor
        else:
            yield data_bytes * inside * (tier.factor - 1) / size
        inside *= tier.factor


def _wire(way: Way, moved_bytes: float, tier: Tier) -> tuple[float, Kind]:
    level, fit = tier.level, tier.level.experts
    if fit is None:
        return wire(moved_bytes, level, 1.0)
    return part(moved_bytes / (level.bandwidth_bytes_per_s.value * fit[f"{way}_share"]), fit)


def _start(way: Way, found: tuple[Tier, ...], machine: Machine, size: int) -> tuple[float, Kind]:
    """Of the kernels, and a round of agreement for each doubling of the ranks at each level."""
    rounds_s = sum(log2(tier.factor) * _hop_s(tier.level) for tier in found)
    for tier in found:
        if tier.level.experts is not None:
            return part(tier.level.experts[f"{way}_s"] + rounds_s, tier.level.experts)
    launch = machine.chip.launch_overhead_s
    return launch.value + rounds_s, launch.kind


def _hop_s(level: Level) -> float:
    return level.experts["hop_s"] if level.experts is not None else level.latency_s.value
