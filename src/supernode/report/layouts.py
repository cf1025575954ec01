"""How the values of a Plan lie on its chips: parameters, optimizer state, inputs, activations."""

from dataclasses import dataclass

from supernode.plan import Layout, MemoryUse, Plan
from supernode.report.activations import activations, time_axes
from supernode.report.repeats import pattern_of
from supernode.report.rows import Laid, Row, Rows, held_bytes
from supernode.report.traffic import Total, Traffic, totals, traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A Plan by rows: what lives from step to step, what the forward ops make, what is sent.

    `mesh` are the axes with their sizes, `time` those whose parts run one after another; bytes are
    those of each chip, in one step. Memory is that of the fullest chip: of a trainer that updates
    state in place, and of `run`. Activations of stages that have layouts of their own are those of
    a microbatch.
    """

    program: str
    layout: str
    chips: int
    mesh: tuple[tuple[str, int], ...]
    time: tuple[tuple[str, int], ...]
    stored: tuple[Laid, ...]
    activations: tuple[Laid, ...]
    traffic: tuple[Traffic, ...]
    totals: tuple[Total, ...]
    in_place: MemoryUse
    by_run: MemoryUse

    @property
    def sent_bytes(self) -> float:
        """What each chip sends in a step."""
        return sum(total.sent_bytes for total in self.totals)

    @property
    def stored_bytes(self) -> int:
        """What parameters, buffers, optimizer state and inputs take on the chip that holds most."""
        return held_bytes(self.stored)


def explanation(plan: Plan) -> Explanation:
    """How `plan` lays out each value, and what its chips send each other, by module.

    Raises:
        UnknownOp: the plan has a collective whose bytes are not known.
    """
    return Explanation(
        program=plan.program.name,
        layout=plan.layout,
        chips=plan.mesh.size,
        mesh=plan.mesh.every_axis(),
        time=time_axes(plan),
        stored=stored(plan),
        activations=activations(plan),
        traffic=traffic(plan),
        totals=totals(plan),
        in_place=plan.memory(in_place=True).fullest,
        by_run=plan.memory().fullest,
    )


def stored(plan: Plan) -> tuple[Laid, ...]:
    """The inputs of the step but for host numbers, in its order; state joins by parameter."""
    reasons = {p.value: p.reason for p in plan.placements if (p.block, p.stage) == ("main", None)}
    ports = list(zip(plan.program.inputs, plan.program.main.inputs, plan.inputs, strict=True))
    homes = {port.name: layout for port, _, layout in ports if port.role == "param"}
    rows = Rows(plan.mesh)
    for port, value, layout in ports:
        if layout is not None:
            strays = port.role == "state" and _strays(layout, homes.get(port.of))
            row = Row(port.role, pattern_of(port.of or port.name), value.tensor, layout, strays)
            rows.add(row, port.name, 1, reasons.get(value.id, ""))
    return rows.laid()


def _strays(layout: Layout, home: Layout | None) -> bool:
    return bool(layout.dims) and layout != home
