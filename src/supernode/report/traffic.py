"""What the chips of a Plan send each other in a step: by module, phase, collective and axis.

One message often carries values of several modules. Each is counted where it comes from: what is
added up with the module that made the parts, what is gathered or exchanged with the module that
first reads it, what goes to another stage of a pipeline with the module that made it.

The stages of a pipeline send different bytes: what is said of a chip is the mean of theirs, and
calls are those of all stages.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from supernode.errors import UnknownOp
from supernode.ir import RECEIVE, SEND, Block, Op, Phase, Program, Site, print_typed
from supernode.plan import Mesh, Plan, crossings_of
from supernode.report.repeats import common_name, ops_once, order_of, pattern_of
from supernode.simulate import sent_bytes
from supernode.simulate.collective_time import COLLECTIVE_OF, COLLECTIVES, Collective, carried

_REDUCTIONS = ("all_reduce", "reduce_scatter")
Way = Collective | Literal["send"]
WAYS: tuple[Way, ...] = (*COLLECTIVES, "send")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What each chip sends along one axis for one module; `module` is empty outside of all.

    `calls` counts the collectives of a step that carry something of this module: modules that
    share one both count it.
    """

    module: str
    phase: Phase
    collective: Way
    axis: str
    calls: int
    sent_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What each chip sends along one axis, of `size` chips, by one kind of collective."""

    axis: str
    size: int
    collective: Way
    calls: int
    sent_bytes: float


def traffic(plan: Plan) -> tuple[Traffic, ...]:
    """The rows, module by module in the order of the forward ops.

    Raises:
        UnknownOp: the plan has a collective whose bytes are not known.
    """
    found: dict[tuple[str, Phase, Way, str], _Sum] = {}
    for message in _messages(plan):
        touched: dict[_Sum, None] = {}
        for site, size_bytes in message.parts:
            key = (pattern_of(site.module), site.phase, message.collective, message.axis)
            row = found.setdefault(key, _Sum())
            row.names.append(site.module)
            row.sent_bytes += message.calls * size_bytes
            touched[row] = None
        for row in touched:
            row.calls += message.calls
    order = order_of(op.site.module for _, op in ops_once(plan.program))
    rows = sorted(found.items(), key=lambda item: order.get(item[0][0], len(order)))
    return tuple(
        Traffic(
            module=common_name(row.names),
            phase=phase,
            collective=collective,
            axis=axis,
            calls=row.calls,
            sent_bytes=row.sent_bytes,
        )
        for (_, phase, collective, axis), row in rows
    )


def totals(plan: Plan) -> tuple[Total, ...]:
    """The sums, in the order of the axes of the mesh, then by collective.

    Raises:
        UnknownOp: the plan has a collective whose bytes are not known.
    """
    found: dict[tuple[tuple[str, int], Way], _Sum] = {}
    for message in _messages(plan):
        row = found.setdefault(((message.axis, message.size), message.collective), _Sum())
        row.calls += message.calls
        row.sent_bytes += message.calls * sum(size for _, size in message.parts)
    return tuple(
        Total(
            axis=axis,
            size=size,
            collective=collective,
            calls=found[(axis, size), collective].calls,
            sent_bytes=found[(axis, size), collective].sent_bytes,
        )
        for axis, size in plan.mesh.every_axis()
        for collective in WAYS
        if ((axis, size), collective) in found
    )


class _Sum:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.calls = 0
        self.sent_bytes = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """One collective of the local program; `parts`: what it sends for each value, and for whom."""

    collective: Way
    axis: str
    size: int
    calls: int
    parts: tuple[tuple[Site, float], ...]


def _messages(plan: Plan) -> Iterator[_Message]:
    stages, mesh = plan.stages(), plan.mesh
    for stage, (rank, local) in enumerate(stages):
        chips = mesh.around(rank).size
        share = chips / mesh.size if mesh.stages else 1 / len(stages)
        yield from _messages_of(local, plan, stage, mesh.around(rank), share)


def _messages_of(
    local: Program, plan: Plan, stage: int, mesh: Mesh, share: float
) -> Iterator[_Message]:
    """Those of a chip that runs `local` in `mesh`; bytes count `share` times."""
    counts = local.counts()
    blocks = {block.name: _Wires(block) for block in local.all_blocks()}
    for block, op in ops_once(local):
        if not op.name.startswith("fabric.") or op.name == RECEIVE:
            continue
        axis = op.args[1]
        assert isinstance(axis, str)
        size = (plan.mesh if op.name == SEND else mesh).axis_size(axis)
        sent = _crossing(op, plan, stage) if op.name == SEND else _sent(op, size)
        yield _Message(
            collective=_way(op),
            axis=axis,
            size=size,
            calls=counts.get(block.name, 1),
            parts=tuple(
                (blocks[block.name].site(op, i), share * size_bytes)
                for i, size_bytes in enumerate(sent)
            ),
        )


def _way(op: Op) -> Way:
    collective = "send" if op.name == SEND else COLLECTIVE_OF.get(op.name)
    if collective is None:
        wrong = f"not known: what {op.name} sends"
        raise UnknownOp(wrong, op=print_typed(op), where=str(op.site))
    return collective


def _crossing(op: Op, plan: Plan, stage: int) -> Iterator[float]:
    """The bytes that a chip of a stage sends another one, on the mean of the stage."""
    (value,) = op.inputs
    if not plan.mesh.stages:
        yield float(value.type.size_bytes)
        return
    parts = crossings_of(op, plan.mesh, stage)
    yield sum(each.size_bytes(value.type) for each in parts) / plan.mesh.stages[stage].size


def _sent(op: Op, size: int) -> Iterator[float]:
    """The bytes that a chip sends for each value."""
    for value in carried(op):
        yield sent_bytes(COLLECTIVE_OF[op.name], value.type.size_bytes, size)


class _Wires:
    """Which op makes each value of a block, and which is the first to read it."""

    def __init__(self, block: Block) -> None:
        self._makers = {value.id: op for op in block.ops for value in op.outputs}
        self._readers: dict[int, Op] = {}
        for op in block.ops:
            for value in op.inputs:
                self._readers.setdefault(value.id, op)

    def site(self, op: Op, position: int) -> Site:
        """Where the value at `position` of a collective comes from or goes to, past others."""
        reduces = op.name == SEND or op.name.removeprefix("fabric.") in _REDUCTIONS
        value = (op.inputs if reduces else op.outputs)[position]
        near = self._makers if reduces else self._readers
        while (other := near.get(value.id)) is not None and _carries(other):
            ends = (other.outputs, other.inputs) if reduces else (other.inputs, other.outputs)
            value = ends[1][ends[0].index(value)]
        if other is None:
            return op.site
        # A view that a gather was moved before keeps its old phase; the gather says when it is.
        return other.site if reduces else replace(other.site, phase=op.site.phase)


def _carries(op: Op) -> bool:
    """Whether an op only moves values on, or fills them up to be moved."""
    return op.name.startswith("fabric.") or op.name in ("local.pad", "local.unpad")
