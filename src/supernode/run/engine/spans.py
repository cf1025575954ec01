"""When the chips ran their ops, and what they held meanwhile, as a Trace."""

from collections.abc import Iterator, Sequence

from supernode.kernels import executed_ops
from supernode.plan import Plan
from supernode.run.engine.messages import OpTimes
from supernode.trace import (
    COMM,
    COMPUTE,
    COPY,
    MEMORY,
    PLANNED_MEMORY,
    Counter,
    Span,
    Stream,
    Trace,
)

_NS = 1e-9
_STREAMS: dict[str, Stream] = {"fabric": COMM, "place": COPY}


def as_trace(plan: Plan, measured: Sequence[OpTimes]) -> Trace:
    """The trace of a step from what each chip measured; it begins with the first op of any."""
    start_ns = min((each.times_ns[0][0] for each in measured if each.times_ns), default=0)
    spans = [
        Span(
            name=op.name,
            chip=chip,
            stream=_STREAMS.get(op.name.partition(".")[0], COMPUTE),
            start_s=(start - start_ns) * _NS,
            end_s=(end - start_ns) * _NS,
            module=op.site.module,
            phase=op.site.phase,
            task=op.site.task,
        )
        for chip, each in enumerate(measured)
        for op, (start, end) in zip(executed_ops(plan.local_of(chip)), each.times_ns, strict=True)
    ]
    meta = {"program": plan.program.name, "mesh": str(plan.mesh), "layout": plan.layout}
    return Trace(
        name=f"{plan.program.name} measured",
        spans=spans,
        counters=[*_memory(plan, measured, start_ns)],
        meta=meta,
    )


def _memory(plan: Plan, measured: Sequence[OpTimes], start_ns: int) -> Iterator[Counter]:
    """What each chip held while each op ran, and what it was to hold, where that changes."""
    if not any(each.memory_bytes for each in measured):
        return
    planned = plan.memory().chips
    for chip, each in enumerate(measured):
        curves = {MEMORY: each.memory_bytes, PLANNED_MEMORY: planned[plan.alike(chip)].timeline}
        for name, curve in curves.items():
            last = -1
            for value, (start, _) in zip(curve, each.times_ns, strict=True):
                if value != last:
                    at_s = (start - start_ns) * _NS
                    yield Counter(name=name, chip=chip, at_s=at_s, value=float(value))
                last = value
