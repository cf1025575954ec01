"""What limits a step: each moment of the timeline under one name, so that shares sum to 1.

While a chip computes it is limited by arithmetic or by memory, whichever takes longer at the
datasheet's rates; while it only communicates, by that collective; while only the host works, by
the host; and what is left is the bubble, in which a chip waits for another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from supernode.machine import Machine
from supernode.simulate.simulation import Simulation
from supernode.trace import COMM, COMPUTE, COPY, Span

ARITHMETIC, MEMORY_TRAFFIC, BUBBLE = "compute", "memory traffic", "bubble"


@dataclass(frozen=True, slots=True)
class _Edge:
    """A span starts (+1) or ends (-1)."""

    at_s: float
    change: int
    name: str
    rank: int


def limits(sim: Simulation, machine: Machine) -> dict[str, float]:
    """The share of the step under each name, largest first; they sum to 1.

    A collective, or a copy from or to another place, counts where it is exposed: where the chip
    does nothing else.
    """
    edges: list[_Edge] = []
    for span in sim.trace.spans:
        if span.chip == 0 and span.end_s > span.start_s:
            name, rank = _name(span, sim, machine)
            edges += [_Edge(span.start_s, 1, name, rank), _Edge(span.end_s, -1, name, rank)]
    spent: dict[str, float] = {}
    active: dict[tuple[int, str], int] = {}
    now_s = 0.0
    for edge in sorted(edges, key=lambda edge: (edge.at_s, edge.change)):
        _add(spent, active, edge.at_s - now_s)
        now_s = edge.at_s
        key = (edge.rank, edge.name)
        active[key] = active.get(key, 0) + edge.change
        if not active[key]:
            del active[key]
    _add(spent, {}, max(sim.step_s - now_s, 0.0))
    total_s = sum(spent.values())
    shares = {name: time_s / total_s for name, time_s in spent.items()} if total_s else {}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _add(spent: dict[str, float], active: Mapping[tuple[int, str], int], time_s: float) -> None:
    """Computing counts before communicating, which counts before the host."""
    if time_s > 0:
        name = min(active)[1] if active else BUBBLE
        spent[name] = spent.get(name, 0.0) + time_s


def _name(span: Span, sim: Simulation, machine: Machine) -> tuple[str, int]:
    if span.stream in (COMM, COPY):
        return span.kind, 1
    if span.stream != COMPUTE:
        return span.kind, 2
    matmul = span.kind == "matmul"
    rate = sim.peak_flops_per_s if matmul else machine.chip.vector_flops_per_s.value
    arithmetic_s = span.flops / rate
    traffic_s = span.bytes / machine.chip.memory.bandwidth_bytes_per_s.value
    return (ARITHMETIC if arithmetic_s >= traffic_s else MEMORY_TRAFFIC), 0
