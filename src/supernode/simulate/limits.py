"""What limits a step: each moment of the timeline under one name, so that shares sum to 1.

While a chip computes it is limited by arithmetic or by memory, whichever takes longer at the
datasheet's rates; while it only communicates, by that collective; while only the host works, by
the host; and what is left is the bubble, in which a chip waits for another.
"""

import numpy as np

from supernode.machine import Machine
from supernode.simulate.ask import SENDING
from supernode.simulate.simulation import Simulation
from supernode.trace import COMM, COMPUTE, COPY, Span, columns, covered_s

ARITHMETIC, MEMORY_TRAFFIC, BUBBLE = "compute", "memory traffic", "bubble"
LEAST = 1e-12
"""A part of the step that is nothing but rounding."""


def limits(sim: Simulation, machine: Machine) -> dict[str, float]:
    """The share of the step under each name, largest first; they sum to 1.

    A collective, or a copy from or to another place, counts where it is exposed: where the chip
    does nothing else.
    """
    rows = columns(sim.trace.spans)
    start_s, end_s = rows.columns["start_s"], rows.columns["end_s"]
    names = [_name(kind, sim, machine) if kind.chip == 0 else None for kind in rows.kinds]
    spent: dict[str, float] = {}
    before_s = 0.0
    # What comes first counts where it is, each next one where none of those before it is.
    for name in sorted({name for name in names if name is not None}):
        known = np.array([n is not None and n <= name for n in names], dtype=bool)[rows.which]
        now_s = covered_s(start_s[known], end_s[known])
        spent[name[1]] = now_s - before_s
        before_s = now_s
    spent[BUBBLE] = sim.step_s - before_s
    kept = {name: time_s for name, time_s in spent.items() if time_s > LEAST * sim.step_s}
    total_s = sum(kept.values())
    shares = {name: time_s / total_s for name, time_s in kept.items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _name(span: Span, sim: Simulation, machine: Machine) -> tuple[int, str]:
    """Computing counts before communicating, which counts before the host; and its name."""
    if span.stream in (COMM, COPY) or span.kind in SENDING:
        return 1, span.kind
    if span.stream != COMPUTE:
        return 2, span.kind
    matmul = span.kind == "matmul"
    rate = sim.peak_flops_per_s if matmul else machine.chip.vector_flops_per_s.value
    arithmetic_s = span.flops / rate
    traffic_s = span.bytes / machine.chip.memory.bandwidth_bytes_per_s.value
    return 0, ARITHMETIC if arithmetic_s >= traffic_s else MEMORY_TRAFFIC
