"""Plan + Machine → Simulation."""

from collections.abc import Iterable, Iterator, Mapping
from math import fsum
from typing import TypeVar

from supernode import ops
from supernode.ir import CALL, Program
from supernode.machine import Kind, Machine
from supernode.ops import Cost
from supernode.plan import Plan
from supernode.plan.memory import MemoryUse, memory
from supernode.simulate.event_loop import Times, critical_path_s, run_tasks
from supernode.simulate.schedule import Schedule, schedule
from supernode.simulate.simulation import Simulation
from supernode.simulate.work import CostOf, Prices, Work
from supernode.trace import COMM, COMPUTE, Counter, Json, Span, Stream, Trace

MEMORY = "memory in use (bytes)"
Key = TypeVar("Key")


def simulate(
    plan: Plan, machine: Machine, *, tokens: int | None = None, cost: CostOf = ops.cost
) -> Simulation:
    """One step of `plan` on `machine`; `tokens` is how many a step handles.

    Every chip runs the same program, so one stands for all: what this takes does not grow with
    their number. A chip computes on one stream and communicates on another, as `schedule.py` says.

    Power is the machine's, all in, for the share of its chips that are used: the idle fraction
    always, the rest while a chip computes.

    Raises:
        LayoutError: the plan needs more chips than the machine has.
        UnknownOp: an op has no cost.
    """
    machine.level_spanning(plan.mesh.size)
    todo = schedule(plan.local, Prices(machine, plan.mesh, cost))
    duration_s = [work.price.timing.time_s for work in todo.works]
    times = run_tasks(todo.tasks, duration_s)
    used = memory(plan.local, early=todo.early)
    trace = _trace(plan, machine, tokens, todo, times, used)
    matmuls = _matmul_flops(plan.program, cost)
    dtype = max(matmuls, key=lambda name: matmuls[name], default="bfloat16")
    compute_s = _busy_s(todo.works, COMPUTE)
    critical = [todo.works[task] for task in times.critical_tasks()]
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
        comm_s=_busy_s(todo.works, COMM),
        exposed_comm_s=trace.exposed_comm_s(0),
        roofline_s=fsum(w.price.timing.bound_s for w in todo.works if w.price.stream == COMPUTE),
        critical_path_s=critical_path_s(todo.tasks, duration_s),
        critical_s=_sums((work.price.kind, work.price.timing.time_s) for work in critical),
        by_kind=_by_kind(critical),
        sent_bytes=_sums(
            (work.price.kind, work.price.bytes) for work in todo.works if work.price.stream == COMM
        ),
        model_flops=fsum(matmuls.values()),
        dtype=dtype,
        peak_flops_per_s=machine.chip.peak(dtype).value,
        memory=used,
        capacity_bytes=machine.chip.memory.capacity_bytes.value,
        power_w=_power_w(machine, plan.mesh.size, compute_s, times.step_s),
    )


def _busy_s(works: Iterable[Work], stream: Stream) -> float:
    return fsum(work.price.timing.time_s for work in works if work.price.stream == stream)


def _by_kind(works: Iterable[Work]) -> Mapping[Kind, float]:
    return _sums(item for work in works for item in work.price.timing.by_kind.items())


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
) -> Trace:
    spans = map(_span, todo.works, times.start_s, times.end_s)
    return Trace(
        name=f"{plan.program.name} on {machine.name}",
        spans=tuple(spans),
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
