"""The range of a simulated time: how far off the answer may be, by what it rests on.

Each part of the step rests on a kind of number, and a kind of number has a spread: how far results
that rest on it are from published ones, as a part of the time. Errors of one kind go together (one
number serves all its ops), those of different kinds do not, so the parts add like a random walk.
What the model leaves out (kernels of other software, other traffic, slow chips) comes on top for
all of the step, and does not shrink where every number is measured.

The spreads were chosen so that about four of five published rows lie inside, by kind and not by
row; `docs/reference/accuracy.md` says how many do.
"""

from collections.abc import Mapping
from math import fsum, sqrt

from supernode.machine import Kind
from supernode.simulate.simulation import Simulation

SPREAD: Mapping[Kind, float] = {
    "measured": 0.10,
    "datasheet": 0.15,
    "inferred": 0.25,
    "guessed": 0.40,
}
LEFT_OUT = 0.15
"""The spread of what no number stands for."""


def time_range(sim: Simulation) -> tuple[float, float]:
    """The lowest and highest time of the step, in seconds, that four of five would lie between."""
    return range_of(sim.step_s, sim.by_kind)


def range_of(time_s: float, by_kind: Mapping[Kind, float]) -> tuple[float, float]:
    """The range of a time of which so much rests on each kind of number."""
    total_s = fsum(by_kind.values())
    if not total_s:
        return time_s, time_s
    parts = [SPREAD[kind] * kind_s / total_s for kind, kind_s in by_kind.items()]
    width = sqrt(fsum(part**2 for part in (*parts, LEFT_OUT)))
    return time_s / (1 + width), time_s * (1 + width)
