"""Times ops and collectives on the chips of this host, by traced steps of probes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from supernode import ops
from supernode.calibrate.probes import REPEATS, Probe, empty_probe, link_probes, op_probes
from supernode.kernels import executed_ops
from supernode.ops import Cost
from supernode.run import LoadedStep, Node
from supernode.simulate.collective_time import COLLECTIVE_OF, Collective, carried

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """How long an op, by name, that costs `cost` took."""

    op: str
    cost: Cost
    seconds: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """How long a collective of so many chips took; `data_bytes` as in `collective_time`."""

    collective: Collective
    size: int
    data_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was timed on `chips` chips of `threads` threads each."""

    chips: int
    threads: int
    ops: tuple[Sample, ...]
    transfers: tuple[Transfer, ...]
    step_s: float


def measured(node: Node, *, threads: int, quick: bool, say: Say) -> Measured:
    """Times all probes on the chips of `node`.

    Raises:
        ChipFailed: a chip failed.
    """
    rounds = 5 if quick else 20
    probes = op_probes(node.chips, quick=quick)
    links = link_probes(node.chips, quick=quick) if node.chips > 1 else []
    fastest: dict[tuple[str, Cost], float] = {}
    transfers: list[Transfer] = []
    for number, probe in enumerate((*probes, *links), start=1):
        say(f"{number}/{len(probes) + len(links)}: {probe.name}")
        seconds = _seconds(node, probe, rounds)
        if probe in links:
            transfers += _transfers(probe, seconds)
        else:
            _take(fastest, probe, seconds)
    return Measured(
        chips=node.chips,
        threads=threads,
        ops=tuple(Sample(op, cost, time_s) for (op, cost), time_s in fastest.items()),
        transfers=tuple(transfers),
        step_s=_host_s(node, rounds),
    )


def _seconds(node: Node, probe: Probe, rounds: int) -> Sequence[float]:
    """The least time of each op of a probe, which others only make longer; mean of the chips."""
    step = node.load(probe.plan, {})
    step.traced_step(probe.args)  # the first one makes memory its own
    times = np.array([_durations(step, probe) for _ in range(rounds)])
    return times.min(axis=0).mean(axis=0).tolist()


def _durations(step: LoadedStep, probe: Probe) -> Sequence[Sequence[float]]:
    """By chip and op."""
    _, trace = step.traced_step(probe.args)
    chips = probe.plan.mesh.size
    by_chip: list[list[float]] = [[] for _ in range(chips)]
    for span in trace.spans:
        by_chip[span.chip].append(span.duration_s)
    return by_chip


def _take(fastest: dict[tuple[str, Cost], float], probe: Probe, seconds: Sequence[float]) -> None:
    """Keeps the fastest time of each kind of op and size."""
    for op, time_s in zip(executed_ops(probe.plan.local), seconds, strict=True):
        cost = ops.cost(op)
        if cost.unit != "none":
            key = op.name, cost
            fastest[key] = min(time_s, fastest.get(key, time_s))


def _transfers(probe: Probe, seconds: Sequence[float]) -> list[Transfer]:
    """One of each size: of its repetitions the fastest, but for the first, which waits."""
    executed, found = executed_ops(probe.plan.local), list[Transfer]()
    for first in range(0, len(executed), REPEATS):
        op = executed[first]
        data_bytes = float(sum(value.type.size_bytes for value in carried(op)))
        time_s = min(seconds[first + 1 : first + REPEATS])
        found.append(Transfer(COLLECTIVE_OF[op.name], probe.plan.mesh.size, data_bytes, time_s))
    return found


def _host_s(node: Node, rounds: int) -> float:
    """What a step takes beyond its ops."""
    probe = empty_probe(node.chips)
    step = node.load(probe.plan, {})
    times: list[float] = []
    for _ in range(10 * rounds):
        start_s = time.perf_counter()
        step.step(probe.args)
        times.append(time.perf_counter() - start_s)
    return min(times)
