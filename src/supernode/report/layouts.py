"""How the values of a Plan lie on its chips: parameters, optimizer state, inputs, activations.

Values whose names differ in layer numbers only, and that agree in all else, are one row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from supernode.ir import Block, HostType, Role, TensorType, Value
from supernode.ops import is_view
from supernode.plan import Layout, MemoryUse, Placement, Plan
from supernode.report.repeats import common_name, ops_once, order_of, pattern_of
from supernode.report.traffic import Total, Traffic, totals, traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """`count` values that lie alike: `whole` is the type of one, `piece` that of the piece that a
    chip has, if it has one.

    `name` is that of a parameter, or the path of the module that an activation comes from.
    `strays` marks optimizer state of its parameter's rank or lower that lies otherwise than it.
    """

    name: str
    role: Role | Literal["activation"]
    count: int
    whole: TensorType
    piece: TensorType
    layout: Layout
    reason: str
    strays: bool = False

    @property
    def bytes_per_chip(self) -> int:
        """What all `count` pieces of one chip take, wherever they live."""
        return self.count * self.piece.size_bytes

    @property
    def where(self) -> str:
        """Which chips have it, and where it lives, if that is not each and in its own memory."""
        stages = "".join(f" {axis}@{coordinate}" for axis, coordinate in self.layout.only)
        return stages + (f" in {self.layout.place}" if self.layout.place else "")


def held_bytes(rows: Iterable[Laid]) -> int:
    """What `rows` take in the memory of the chip that holds most of them; what lives elsewhere
    takes none."""
    everywhere, by_stage = 0, Counter[tuple[tuple[str, int], ...]]()
    for row in rows:
        if row.layout.only and not row.layout.place:
            by_stage[row.layout.only] += row.bytes_per_chip
        elif not row.layout.place:
            everywhere += row.bytes_per_chip
    return everywhere + max(by_stage.values(), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A Plan by rows: what lives from step to step, what the forward ops make, what is sent.

    `mesh` are the axes with their sizes; bytes are those of each chip, in one step. Memory is that
    of the fullest chip: of a trainer that updates state in place, and of `run`.
    """

    program: str
    layout: str
    chips: int
    mesh: tuple[tuple[str, int], ...]
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
        stored=stored(plan),
        activations=activations(plan),
        traffic=traffic(plan),
        totals=totals(plan),
        in_place=plan.memory(in_place=True).fullest,
        by_run=plan.memory().fullest,
    )


def stored(plan: Plan) -> tuple[Laid, ...]:
    """The inputs of the step but for host numbers, in its order; state joins by parameter."""
    reasons = {each.value: each.reason for each in plan.placements if each.block == "main"}
    ports = list(zip(plan.program.inputs, plan.program.main.inputs, plan.inputs, strict=True))
    homes = {port.name: layout for port, _, layout in ports if port.role == "param"}
    rows = _Rows(plan)
    for port, value, layout in ports:
        if layout is not None:
            strays = port.role == "state" and _strays(layout, homes.get(port.of))
            row = _Row(port.role, pattern_of(port.of or port.name), value.tensor, layout, strays)
            rows.add(row, port.name, 1, reasons.get(value.id, ""))
    return rows.laid()


def _strays(layout: Layout, home: Layout | None) -> bool:
    return bool(layout.dims) and layout != home


def activations(plan: Plan) -> tuple[Laid, ...]:
    """What the forward ops of each module compute, as its last view of it; largest pieces first.

    A view takes no memory of its own, and what a plan does not place (host numbers) is left out.
    """
    rows = _Rows(plan)
    placed = _Placed(plan)
    products = {block.name: _products(block) for block in plan.program.all_blocks()}
    for block, op in ops_once(plan.program):
        for value in op.outputs:
            shown = products[block.name].get(value.id)
            if shown is None:
                continue
            module = op.site.module
            for each, calls in placed.layouts(block, shown):
                row = _Row("activation", pattern_of(module), shown.tensor, each.layout, False)
                rows.add(row, module, calls, each.reason)
    laid = rows.laid()
    patterns, names = order_of(row.name for row in laid), [row.name for row in laid]
    places = {name: (patterns[pattern_of(name)], names.index(name)) for name in names}
    return tuple(sorted(laid, key=lambda row: (places[row.name], -row.piece.size_bytes)))


@dataclass(frozen=True, slots=True)
class _Row:
    """What the values of one row agree in."""

    role: Role | Literal["activation"]
    pattern: str
    whole: TensorType
    layout: Layout
    strays: bool


class _Rows:
    """Rows in the order in which they are first met."""

    def __init__(self, plan: Plan) -> None:
        self._mesh = plan.mesh
        self._found: dict[_Row, tuple[str, list[str], list[int]]] = {}

    def add(self, row: _Row, name: str, count: int, reason: str) -> None:
        _, names, counts = self._found.setdefault(row, (reason, [], []))
        names.append(name)
        counts.append(count)

    def laid(self) -> tuple[Laid, ...]:
        return tuple(
            Laid(
                name=common_name(names),
                role=row.role,
                count=sum(counts),
                whole=row.whole,
                piece=TensorType(
                    row.whole.dtype,
                    replace(row.layout, only=()).local_shape(
                        row.whole.shape, self._mesh, row.layout.holders(self._mesh)[0]
                    ),
                ),
                layout=row.layout,
                reason=reason,
                strays=row.strays,
            )
            for row, (reason, names, counts) in self._found.items()
        )


class _Placed:
    """The layouts of the values of a Plan, each with how often its block is called with it."""

    def __init__(self, plan: Plan) -> None:
        self._one_chip = plan.mesh.size == 1
        self._counts: Counter[str] = Counter()
        for _, local in plan.stages():
            for name, count in local.counts().items():
                # Parts in time call forms of a block: `layers@first`, `layers@next`.
                self._counts[name.partition("@")[0]] += count
        self._placements: dict[tuple[str, int], list[Placement]] = {}
        for each in plan.placements:
            self._placements.setdefault((each.block, each.value), []).append(each)

    def layouts(self, block: Block, value: Value) -> Iterator[tuple[Placement, int]]:
        placements = self._placements.get((block.name, value.id), [])
        if self._one_chip:
            whole = Layout.whole(len(value.tensor.shape))
            placements = [Placement(block=block.name, value=value.id, layout=whole, reason="")]
        for number, placed in enumerate(placements):
            # The partition names the forms of a block in the order in which it places its values.
            form = f"{block.name}.{number}" if number else block.name
            yield placed, self._counts[form] or 1


def _products(block: Block) -> Mapping[int, Value]:
    """For each tensor that a forward op computes, its last whole view in the same module."""
    shown: dict[int, Value] = {}
    origin: dict[int, tuple[int, str]] = {}
    for op in block.ops:
        if op.site.phase != "forward":
            continue
        module = op.site.module
        if is_view(op):
            (out,) = op.outputs[:1]
            source = origin.get(op.inputs[0].id)
            if source and source[1] == module and _as_large(out, shown[source[0]]):
                origin[out.id] = source
                shown[source[0]] = out
            continue
        for out in op.outputs:
            if not isinstance(out.type, HostType):
                origin[out.id] = (out.id, module)
                shown[out.id] = out
    return shown


def _as_large(view: Value, base: Value) -> bool:
    return view.tensor.numel == base.tensor.numel
