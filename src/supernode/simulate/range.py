"""The range of a simulated time: how far off the answer may be, and why.

Each part of the step rests on numbers that may be off by so much (a doubt): what was fitted, by the
error of the fit on measurements that it did not see; what was carried over, published or guessed,
by its kind. Some parts are in doubt for more reasons than their numbers. One doubt concerns all
that rests on it in the same way, unlike doubts are independent, so their parts of the step add
like a random walk. What the model leaves out comes on top for all of the step.

A spread is the error that four of five lie within. None of them knows of a source, a machine or a
row; `docs/reference/accuracy.md` says how many rows lie in their range.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from supernode.ir import Program
from supernode.machine import Fit, Kind, Machine
from supernode.ops import Cost, Product
from supernode.simulate.ask import Beside, Sending
from supernode.simulate.op_time import fit_for
from supernode.simulate.played import Spent
from supernode.simulate.terms import Terms

SPREAD: Mapping[Kind, float] = {
    "measured": 0.10,
    "datasheet": 0.15,
    "inferred": 0.25,
    "guessed": 0.40,
}
FOUR_OF_FIVE = 1.28 / 1.645
"""Of normal errors, the size that 80 % are below over the one that 90 % are below."""
UNMEASURED = 0.40
"""Of an op of a kind that was not measured, on a chip where others were."""
STARTING, MOSTLY = 0.25, 4.0
"""Of ops that take so many times what the chip needs at best: starts and stalls decide."""
UNEVEN = 0.20
"""Of experts, if a router is taken to spread rows evenly."""
LEFT_OUT = 0.15
"""Of a step, by what no number stands for: other kernels, other traffic, slow chips."""
TRAINING_EXPERTS = 0.50
"""The same of a step that trains experts: how they are launched, sorted, sent and waited for is
what their software still changes. One published stack gained up to 75 % from release to release on
one model, one layout and one machine (`accuracy/data/README.md`). Its recipes say what it did; what
its hosts and its ranks wait for they do not."""
SERVING = 0.50
"""The same of a step that serves: stacks differ by as much on one model and one machine."""


@dataclass(frozen=True, slots=True, order=True)
class Doubt:
    """Why a part of a step may take another time, and by how much four of five differ at most."""

    reason: str
    spread: float


Doubts = Mapping[Doubt, float]
"""The seconds of the step that each doubt concerns."""


def doubts(
    critical: Sequence[Spent], machine: Machine, terms: Terms, program: Program
) -> dict[Doubt, float]:
    """The doubts about a step that waited for `critical`, the largest first."""
    found: dict[Doubt, list[float]] = {}
    for spent in critical:
        for doubt, time_s in _of(spent, machine, terms):
            found.setdefault(doubt, []).append(time_s)
    host, host_s = machine.host_step_s, terms.host_s(machine)
    if host is not None and host_s:
        found.setdefault(_by_kind(host.kind), []).append(host_s)
    found[_left_out(program)] = [host_s, *(spent.time_s for spent in critical)]
    summed = {doubt: fsum(found[doubt]) for doubt in sorted(found)}
    return dict(sorted(summed.items(), key=lambda item: -item[0].spread * item[1]))


def _of(spent: Spent, machine: Machine, terms: Terms) -> Iterator[tuple[Doubt, float]]:
    what, alone = spent.ask.what, spent.alone
    what = what.product if isinstance(what, Beside) else what
    fit = _fit(what, machine)
    if fit is not None:
        yield _of_fit(fit, what), spent.time_s
    elif isinstance(what, Cost) and machine.chip.kernels:
        yield Doubt("unmeasured kernels", UNMEASURED), spent.time_s
    else:
        for kind, part_s in alone.by_kind.items():
            yield _by_kind(kind), part_s * spent.time_s / alone.time_s
    if isinstance(what, Cost) and alone.time_s > MOSTLY * alone.bound_s:
        yield Doubt("tiny ops", STARTING), spent.time_s
    if terms.imbalance == 1 and _is_of_experts(what):
        yield Doubt("even experts", UNEVEN), spent.time_s


def _fit(what: object, machine: Machine) -> Fit | None:
    """The fit that the time of something rests on."""
    if isinstance(what, Cost):
        return fit_for(what, machine.chip)
    if not isinstance(what, Sending):
        return None
    level = machine.level_spanning(what.stride * what.size)
    return level.experts if what.way is not None else level.transport


def _of_fit(fit: Fit, what: object) -> Doubt:
    names = "fit of kernels" if isinstance(what, Cost) else "fit of transfers"
    kind = fit.any.kind
    if not fit.rows:
        return _by_kind(kind)
    return Doubt(names, max(FOUR_OF_FIVE * fit.p90_error, SPREAD[kind]))


def _by_kind(kind: Kind) -> Doubt:
    return Doubt(f"{kind} numbers", SPREAD[kind])


def _is_of_experts(what: object) -> bool:
    if isinstance(what, Sending):
        return what.rows or what.way is not None
    return isinstance(what, Cost) and isinstance(what.shape, Product) and what.shape.ragged


def _left_out(program: Program) -> Doubt:
    """Of a step that has weights but changes none, or experts that learn, the software is not
    known."""
    weights = {i for i, port in enumerate(program.inputs) if port.role == "param"}
    backward = [op for b in program.all_blocks() for op in b.ops if op.site.phase == "backward"]
    if any(op.name == "aten._grouped_mm" for op in backward):
        return Doubt("software for experts", TRAINING_EXPERTS)
    if weights and not backward and weights.isdisjoint(program.updates):
        return Doubt("serving software", SERVING)
    return Doubt("left out", LEFT_OUT)


def range_of(time_s: float, found: Doubts) -> tuple[float, float]:
    """The range of a time of which so much is in each doubt; the longest part is the whole."""
    whole_s = max(found.values(), default=0.0)
    if not whole_s:
        return time_s, time_s
    parts = (doubt.spread * part_s / whole_s for doubt, part_s in found.items())
    width = sqrt(fsum(part**2 for part in parts))
    return time_s / (1 + width), time_s * (1 + width)
