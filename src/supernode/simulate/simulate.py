"""Plan + Machine → Simulation."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import fsum
from typing import TypeVar

from supernode import ops
from supernode.ir import CALL, Program
from supernode.machine import Kind, Machine, Sourced
from supernode.ops import Cost
from supernode.plan import Plan
from supernode.plan.memory import MemoryUse, memory
from supernode.simulate.collective_time import COLLECTIVES
from supernode.simulate.event_loop import Times, critical_path_s, run_tasks
from supernode.simulate.schedule import Schedule, schedule
from supernode.simulate.simulation import Simulation
from supernode.simulate.terms import Terms
from supernode.simulate.work import CostOf, Prices, Work
from supernode.trace import COMM, COMPUTE, HOST, Counter, Json, Span, Stream, Trace

MEMORY = "memory in use (bytes)"
JITTER, INTERFERENCE = "jitter", "interference"
"""What the step waited for that is no op: the slowest chip, and cores taken by communication."""
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

    Every chip runs the same program, so one stands for all: what this takes does not grow with
    their number. A chip computes on one stream and communicates on another, as `schedule.py` says.

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
        self._ready: dict[tuple[bool, bool], tuple[Schedule, MemoryUse]] = {}

    def on(self, machine: Machine, *, tokens: int | None = None, terms: Terms = ALL) -> Simulation:
        """One step of the plan on `machine`; arguments and errors as those of `simulate`."""
        machine.level_spanning(self._plan.mesh.size)
        prices = Prices(machine, self._plan.mesh, self._cost, terms)
        key = (terms.fusion and machine.chip.fuses, terms.overlap)
        if key in self._ready:
            known, used = self._ready[key]
            todo = replace(known, works=prices.again(known.works))
        else:
            todo = schedule(self._plan.local, prices)
            used = memory(self._plan.local, early=todo.early)
            self._ready[key] = todo, used
        return _played(self._plan, machine, tokens, terms, todo, used, self._matmuls)


def _played(
    plan: Plan,
    machine: Machine,
    tokens: int | None,
    terms: Terms,
    todo: Schedule,
    used: MemoryUse,
    matmuls: Mapping[str, float],
) -> Simulation:
    alone_s = [work.price.timing.time_s for work in todo.works]
    host_s = terms.host_s(machine)
    times = run_tasks(todo.tasks, alone_s, beside=terms.beside(machine.chip)).after(host_s)
    duration_s = times.durations_s()
    trace = _trace(plan, machine, tokens, todo, times, used, host_s)
    dtype = max(matmuls, key=lambda name: matmuls[name], default="bfloat16")
    compute_s = _busy_s(todo.works, duration_s, COMPUTE)
    critical = [(todo.works[task], duration_s[task]) for task in times.critical_tasks()]
    return Simulation(
        program=plan.program.name,
        layout=plan.layout,
        machine=machine.name,
        machine_title=machine.title,
        chips=plan.mesh.size,
        tokens=tokens,
        trace=trace,
        step_s=times.step_s,
        compute_s=compute_s,
        comm_s=_busy_s(todo.works, duration_s, COMM),
        exposed_comm_s=trace.exposed_comm_s(0),
        roofline_s=fsum(w.price.timing.bound_s for w in todo.works if w.price.stream == COMPUTE),
        critical_path_s=critical_path_s(todo.tasks, alone_s),
        critical_s=_by_cause(critical, terms.stretch(machine.chip, plan.mesh.size), host_s),
        by_kind=_by_kind(critical, machine.host_step_s if host_s else None),
        sent_bytes=_sent_bytes(todo.works),
        model_flops=fsum(matmuls.values()),
        dtype=dtype,
        peak_flops_per_s=machine.chip.peak(dtype).value,
        memory=used,
        capacity_bytes=machine.chip.memory.capacity_bytes.value,
        power_w=_power_w(machine, plan.mesh.size, compute_s, times.step_s),
    )


Critical = Iterable[tuple[Work, float]]
"""What the step waited for, each with how long it took."""


def _busy_s(works: Iterable[Work], duration_s: Iterable[float], stream: Stream) -> float:
    pairs = zip(works, duration_s, strict=True)
    return fsum(time_s for work, time_s in pairs if work.price.stream == stream)


def _sent_bytes(works: Iterable[Work]) -> Mapping[str, float]:
    prices = (work.price for work in works)
    return _sums((price.kind, price.bytes) for price in prices if price.kind in COLLECTIVES)


def _by_cause(critical: Critical, stretch: float, host_s: float) -> Mapping[str, float]:
    """What each thing waited for took alone, and apart from that what slowed it down."""
    parts = [(HOST, host_s)] if host_s else list[tuple[str, float]]()
    for work, time_s in critical:
        kind, alone_s = work.price.kind, work.price.timing.time_s
        slowed = kind not in COLLECTIVES
        parts.append((kind, alone_s / stretch if slowed else time_s))
        if slowed and stretch > 1:
            parts.append((JITTER, alone_s - alone_s / stretch))
        if slowed and time_s > alone_s * (1 + 1e-9):
            parts.append((INTERFERENCE, time_s - alone_s))
    return _sums(parts)


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


def _trace(
    plan: Plan,
    machine: Machine,
    tokens: int | None,
    todo: Schedule,
    times: Times,
    used: MemoryUse,
    host_s: float,
) -> Trace:
    spans = map(_span, todo.works, times.start_s, times.end_s)
    host = [Span(name=HOST, chip=0, stream=HOST, start_s=0.0, end_s=host_s, kind=HOST)]
    return Trace(
        name=f"{plan.program.name} on {machine.name}",
        spans=(*(host if host_s else ()), *spans),
        counters=tuple(_memory_counters(todo, times, used)),
        meta=_meta(plan, machine, tokens),
    )


def _span(work: Work, start_s: float, end_s: float) -> Span:
    op, price = work.op, work.price
    return Span(
        name=op.name,
        chip=0,
        stream=price.stream,
        start_s=start_s,
        end_s=end_s,
        module=op.site.module,
        phase=op.site.phase,
        flops=price.flops,
        bytes=price.bytes,
        kind=price.kind,
    )


def _memory_counters(todo: Schedule, times: Times, used: MemoryUse) -> Iterator[Counter]:
    """Memory by time: at each op that computes the most since the one before it."""
    seen, last = 0, -1.0
    for task, position in enumerate(todo.positions):
        if todo.works[task].price.stream == COMM:
            continue
        value = float(max(used.timeline[seen : position + 1]))
        if value != last:
            yield Counter(name=MEMORY, chip=0, at_s=times.start_s[task], value=value)
        seen, last = position + 1, value
    rest = used.timeline[seen:]
    if rest:
        yield Counter(name=MEMORY, chip=0, at_s=times.step_s, value=float(max(rest)))


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
        "represents": "chip 0 stands for all chips",
        "tokens": tokens,
        "machine": machine.name,
        "machine_numbers": numbers,
    }
