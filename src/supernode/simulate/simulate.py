"""Plan + Machine → Simulation."""

from collections import Counter as Counts
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from math import fsum
from typing import TypeVar

from supernode import ops
from supernode.ir import CALL, Program
from supernode.machine import Kind, Machine, Sourced
from supernode.ops import Cost
from supernode.plan import Plan
from supernode.plan.memory import MemoryUse
from supernode.simulate.collective_time import COLLECTIVES, sent_by_level
from supernode.simulate.schedule import Schedule
from supernode.simulate.simulation import Simulation
from supernode.simulate.stages import Critical, Ready, Run
from supernode.simulate.terms import Terms
from supernode.simulate.work import FETCHED, MESSAGE, STORED, CostOf, Prices, Sending, Work
from supernode.trace import COMM, COMPUTE, HOST, MEMORY, Counter, Json, Span, Trace

JITTER, INTERFERENCE, BUBBLE = "jitter", "interference", "bubble"
"""What the step waited for that is no op: the slowest chip, cores taken by communication, and
other stages of a pipeline."""
SENDING = (*COLLECTIVES, MESSAGE, FETCHED, STORED)
ALL = Terms()
Key = TypeVar("Key")


def simulate(
    plan: Plan,
    machine: Machine,
    *,
    tokens: int | None = None,
    cost: CostOf = ops.cost,
    terms: Terms = ALL,
) -> Simulation:
    """One step of `plan` on `machine`; `tokens` is how many a step handles.

    `terms` says what counts beyond ops and collectives, each of it to be switched off.

    One chip stands for all that run the same program, that is for all, or for those of its stage:
    what this takes does not grow with their number. A chip computes on one stream and communicates
    on another, as `schedule.py` says.

    Power is the machine's, all in, for the share of its chips that are used: the idle fraction
    always, the rest while a chip computes.

    Raises:
        LayoutError: the plan needs more chips than the machine has.
        UnknownOp: an op has no cost.
    """
    return Rehearsal(plan, cost).on(machine, tokens=tokens, terms=terms)


class Rehearsal:
    """A plan made ready: what does not depend on the machine's numbers is found once.

    `on` then answers for machine after machine, as `simulate` does, in a part of the time.
    """

    def __init__(self, plan: Plan, cost: CostOf = ops.cost) -> None:
        self._plan = plan
        self._cost = cost
        self._matmuls = _matmul_flops(plan.program, cost)
        self._ready: dict[tuple[bool, bool], Ready] = {}

    def on(self, machine: Machine, *, tokens: int | None = None, terms: Terms = ALL) -> Simulation:
        """One step of the plan on `machine`; arguments and errors as those of `simulate`."""
        machine.level_spanning(self._plan.mesh.size)
        prices = Prices(machine, self._plan.mesh, self._cost, terms)
        key = (terms.fusion and machine.chip.fuses, terms.overlap)
        ready = self._ready.get(key)
        ready = Ready.of(self._plan, prices) if ready is None else ready.again(prices)
        self._ready.setdefault(key, ready)
        run = ready.run(machine, terms)
        return _played(self._plan, machine, tokens, terms, run, self._matmuls)


def _played(
    plan: Plan,
    machine: Machine,
    tokens: int | None,
    terms: Terms,
    run: Run,
    matmuls: Mapping[str, float],
) -> Simulation:
    host_s = terms.host_s(machine)
    trace = _trace(plan, machine, tokens, run, host_s)
    dtype = max(matmuls, key=lambda name: matmuls[name], default="bfloat16")
    return Simulation(
        program=plan.program.name,
        layout=plan.layout,
        machine=machine.name,
        machine_title=machine.title,
        chips=plan.mesh.size,
        tokens=tokens,
        trace=trace,
        step_s=run.times.step_s,
        compute_s=run.mean_busy_s(COMPUTE),
        comm_s=run.mean_busy_s(COMM),
        exposed_comm_s=trace.exposed_comm_s(run.ranks[run.busiest]),
        roofline_s=run.roofline_s(),
        critical_path_s=run.critical_path_s(),
        critical_s=_by_cause(run, trace, terms.stretch(machine.chip, plan.mesh.size), host_s),
        by_kind=_by_kind(run.critical(), machine.host_step_s if host_s else None),
        sent_bytes=_sent_bytes(run.works, len(run.stages)),
        sent_by_level=_sent_by_level(run, machine),
        model_flops=fsum(matmuls.values()),
        dtype=dtype,
        peak_flops_per_s=machine.chip.peak(dtype).value,
        memory=max(run.memories, key=lambda used: used.peak_bytes),
        capacity_bytes=machine.chip.memory.capacity_bytes.value,
        power_w=_power_w(machine, plan.mesh.size, run.mean_busy_s(COMPUTE), run.times.step_s),
    )


def _sent_bytes(works: Iterable[Work], stages: int) -> Mapping[str, float]:
    """By a chip, on the mean of the stages."""
    prices = (work.price for work in works)
    sent = _sums((price.kind, price.bytes) for price in prices if price.kind in SENDING)
    return {kind: amount / stages for kind, amount in sent.items()}


def _sent_by_level(run: Run, machine: Machine) -> Mapping[tuple[str, str], float]:
    """By a chip, on the mean of the stages, by level and collective."""
    asked = Counts((work.price.kind, work.price.ask) for work in run.works)
    sent: dict[tuple[str, str], float] = {}
    for (kind, ask), times in asked.items():
        if isinstance(ask, Sending):
            crossed = sent_by_level(
                ask.collective, ask.data_bytes, machine=machine, stride=ask.stride, size=ask.size
            )
            for level, amount in crossed.items():
                amount *= times / len(run.stages)
                sent[level, kind] = sent.get((level, kind), 0.0) + amount
    order = [level.name for level in machine.levels]
    return dict(sorted(sent.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def _by_cause(run: Run, trace: Trace, stretch: float, host_s: float) -> Mapping[str, float]:
    """What the step waited for took alone, and apart from that what slowed it down.

    In a pipeline, what the busiest stage did: its computing, its communication while it computed
    nothing, and the rest, in which it waited for the others, as the bubble.
    """
    parts = [(HOST, host_s)] if host_s else list[tuple[str, float]]()
    if len(run.stages) == 1:
        for work, time_s in run.critical():
            parts += _causes(work, time_s, stretch)
        return _sums(parts)
    sending: list[tuple[str, float]] = []
    for work, time_s in run.of_stage(run.busiest):
        (parts if work.price.stream == COMPUTE else sending).extend(_causes(work, time_s, stretch))
    exposed_s = trace.exposed_comm_s(run.ranks[run.busiest])
    all_s = fsum(time_s for _, time_s in sending)
    parts += [(kind, exposed_s * time_s / all_s) for kind, time_s in sending if all_s]
    idle_s = run.times.step_s - fsum(time_s for _, time_s in parts)
    return _sums([*parts, (BUBBLE, max(idle_s, 0.0))])


def _causes(work: Work, time_s: float, stretch: float) -> Iterator[tuple[str, float]]:
    kind, alone_s = work.price.kind, work.price.timing.time_s
    slowed = kind not in SENDING
    yield kind, alone_s / stretch if slowed else time_s
    if slowed and stretch > 1:
        yield JITTER, alone_s - alone_s / stretch
    if slowed and time_s > alone_s * (1 + 1e-9):
        yield INTERFERENCE, time_s - alone_s


def _by_kind(critical: Critical, host: Sourced | None) -> Mapping[Kind, float]:
    parts: list[tuple[Kind, float]] = [
        (kind, part * time_s / work.price.timing.time_s)
        for work, time_s in critical
        for kind, part in work.price.timing.by_kind.items()
    ]
    if host is not None:
        parts.append((host.kind, host.value))
    return _sums(parts)


def _sums(items: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """The sum of each key, in the order of the keys' names."""
    found: dict[Key, list[float]] = {}
    for key, amount in items:
        found.setdefault(key, []).append(amount)
    return {key: fsum(found[key]) for key in sorted(found, key=str)}


def _power_w(machine: Machine, chips: int, compute_s: float, step_s: float) -> float:
    idle = machine.chip.idle_power_fraction.value
    busy = compute_s / step_s if step_s else 0.0
    return machine.power_w.value * chips / machine.chips * (idle + (1 - idle) * busy)


def _matmul_flops(program: Program, cost: CostOf) -> Mapping[str, float]:
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


def _trace(plan: Plan, machine: Machine, tokens: int | None, run: Run, host_s: float) -> Trace:
    spans: list[Span] = []
    counters: list[Counter] = []
    first = 0
    for rank, todo, used in zip(run.ranks, run.stages, run.memories, strict=True):
        start_s = run.times.start_s[first : first + len(todo.works)]
        end_s = run.times.end_s[first : first + len(todo.works)]
        if host_s:
            spans.append(
                Span(name=HOST, chip=rank, stream=HOST, start_s=0.0, end_s=host_s, kind=HOST)
            )
        spans += map(_span, todo.works, todo.labels, start_s, end_s, repeat(rank))
        counters += _memory_counters(todo, start_s, run.times.step_s, used, rank)
        first += len(todo.works)
    return Trace(
        name=f"{plan.program.name} on {machine.name}",
        spans=tuple(spans),
        counters=tuple(counters),
        meta=_meta(plan, machine, tokens),
    )


def _span(work: Work, task: str, start_s: float, end_s: float, rank: int) -> Span:
    op, price = work.op, work.price
    return Span(
        name=op.name,
        chip=rank,
        stream=price.stream,
        start_s=start_s,
        end_s=end_s,
        module=op.site.module,
        phase=op.site.phase,
        flops=price.flops,
        bytes=price.bytes,
        kind=price.kind,
        task=task,
    )


def _memory_counters(
    todo: Schedule, start_s: Sequence[float], step_s: float, used: MemoryUse, rank: int
) -> Iterator[Counter]:
    """Memory by time: at each op that computes the most since the one before it."""
    seen, last = 0, -1.0
    for task, position in enumerate(todo.positions):
        if todo.works[task].price.stream != COMPUTE:
            continue
        value = float(max(used.timeline[seen : position + 1]))
        if value != last:
            yield Counter(name=MEMORY, chip=rank, at_s=start_s[task], value=value)
        seen, last = position + 1, value
    rest = used.timeline[seen:]
    if rest:
        yield Counter(name=MEMORY, chip=rank, at_s=step_s, value=float(max(rest)))


def _meta(plan: Plan, machine: Machine, tokens: int | None) -> dict[str, Json]:
    numbers: dict[str, Json] = {
        key: {"value": n.value, "kind": n.kind, "source": n.source, "date": n.date}
        for key, n in machine.numbers()
    }
    return {
        "kind": "simulated",
        "program": plan.program.name,
        "layout": plan.layout,
        "mesh": {name: size for name, size in plan.mesh.axes},
        "chips": plan.mesh.size,
        "represents": "a chip of each stage stands for all of it"
        if plan.is_staged
        else "chip 0 stands for all chips",
        "tokens": tokens,
        "machine": machine.name,
        "machine_numbers": numbers,
    }
