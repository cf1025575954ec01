"""When the chips ran their ops, as a Trace."""

from collections.abc import Sequence

from supernode.kernels import executed_ops
from supernode.plan import Plan
from supernode.trace import COMM, COMPUTE, Span, Trace

_NS = 1e-9


def as_trace(plan: Plan, times_ns: Sequence[Sequence[tuple[int, int]]]) -> Trace:
    """The trace of a step from each chip's times by op; it begins with the first op of any."""
    start_ns = min((times[0][0] for times in times_ns if times), default=0)
    spans = [
        Span(
            name=op.name,
            chip=chip,
            stream=COMM if op.name.startswith("fabric.") else COMPUTE,
            start_s=(start - start_ns) * _NS,
            end_s=(end - start_ns) * _NS,
            module=op.site.module,
            phase=op.site.phase,
            task=op.site.task,
        )
        for chip, times in enumerate(times_ns)
        for op, (start, end) in zip(executed_ops(plan.local_of(chip)), times, strict=True)
    ]
    meta = {"program": plan.program.name, "mesh": str(plan.mesh), "layout": plan.layout}
    return Trace(name=f"{plan.program.name} measured", spans=tuple(spans), meta=meta)
