"""What a step is made of: by what it waited for, by the kind of number that rests on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import TypeVar

from supernode.ir import CALL, Program
from supernode.machine import Kind, Machine, Sourced
from supernode.ops import Cost
from supernode.simulate.ask import SENDING, Sending
from supernode.simulate.collective_time import sent_by_level
from supernode.simulate.played import Played, Spent
from supernode.simulate.side_by_side import CostOf
from supernode.trace import COMPUTE, HOST, Trace

JITTER, INTERFERENCE, BUBBLE = "jitter", "interference", "bubble"
"""What the step waited for that is no op: the slowest chip, cores taken by communication, and
other stages of a pipeline."""
Key = TypeVar("Key")


def sent_bytes(played: Played) -> Mapping[str, float]:
    """What a chip sends by collective, on the mean of the stages."""
    sent = _sums(
        (spent.ask.kind, spent.ops * spent.ask.bytes)
        for spent in played.of_all()
        if spent.ask.kind in SENDING
    )
    return {kind: amount / played.count for kind, amount in sent.items()}


def sent_levels(played: Played, machine: Machine) -> Mapping[tuple[str, str], float]:
    """What a chip sends by level and collective, on the mean of the stages."""
    sent: dict[tuple[str, str], float] = {}
    for spent in played.of_all():
        what = spent.ask.what
        if not isinstance(what, Sending):
            continue
        crossed = sent_by_level(
            what.collective, what.data_bytes, machine=machine, stride=what.stride, size=what.size
        )
        for level, amount in crossed.items():
            key = level, spent.ask.kind
            sent[key] = sent.get(key, 0.0) + amount * spent.ops / played.count
    order = [level.name for level in machine.levels]
    return dict(sorted(sent.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def by_cause(played: Played, trace: Trace, stretch: float, host_s: float) -> Mapping[str, float]:
    """What the step waited for took alone, and apart from that what slowed it down.

    In a pipeline, what the busiest stage did: its computing, its communication while it computed
    nothing, and the rest, in which it waited for the others, as the bubble.
    """
    parts = [(HOST, host_s)] if host_s else list[tuple[str, float]]()
    if played.count == 1:
        for spent in played.critical():
            parts += _causes(spent, stretch)
        return _sums(parts)
    sending: list[tuple[str, float]] = []
    for spent in played.of_stage(played.busiest):
        (parts if spent.ask.stream == COMPUTE else sending).extend(_causes(spent, stretch))
    exposed_s = trace.exposed_comm_s(played.stages.ranks[played.busiest])
    all_s = fsum(time_s for _, time_s in sending)
    parts += [(kind, exposed_s * time_s / all_s) for kind, time_s in sending if all_s]
    idle_s = played.times.step_s - fsum(time_s for _, time_s in parts)
    return _sums([*parts, (BUBBLE, max(idle_s, 0.0))])


def _causes(spent: Spent, stretch: float) -> Iterator[tuple[str, float]]:
    kind, alone_s = spent.ask.kind, spent.ops * spent.alone.time_s
    slowed = kind not in SENDING
    yield kind, alone_s / stretch if slowed else spent.time_s
    if slowed and stretch > 1:
        yield JITTER, alone_s - alone_s / stretch
    if slowed and spent.time_s > alone_s * (1 + 1e-9):
        yield INTERFERENCE, spent.time_s - alone_s


def by_kind(critical: Sequence[Spent], host: Sourced | None) -> Mapping[Kind, float]:
    """The kinds of number that what the step waited for, and the host, rest on."""
    parts: list[tuple[Kind, float]] = [
        (kind, part * spent.time_s / spent.alone.time_s)
        for spent in critical
        for kind, part in spent.alone.by_kind.items()
    ]
    if host is not None:
        parts.append((host.kind, host.value))
    return _sums(parts)


def power_w(machine: Machine, chips: int, busy: float) -> float:
    """The power of so many chips, which compute for a share `busy` of the step."""
    idle = machine.chip.idle_power_fraction.value
    return machine.power_w.value * chips / machine.chips * (idle + (1 - idle) * busy)


def matmul_flops(program: Program, cost: CostOf) -> Mapping[str, float]:
    """The FLOP of the matrix unit, by dtype."""
    counts = program.counts()
    flops: list[tuple[str, float]] = []
    for block in program.all_blocks():
        times = counts.get(block.name, 1)
        for op in block.ops:
            spent = cost(op) if op.name != CALL else Cost()
            if spent.unit == "matmul":
                flops.append((spent.dtype, times * spent.flops))
    return _sums(flops)


def _sums(items: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """The sum of each key, in the order of the keys' names."""
    found: dict[Key, list[float]] = {}
    for key, amount in items:
        found.setdefault(key, []).append(amount)
    return {key: fsum(found[key]) for key in sorted(found, key=str)}
