"""How what the forward ops make lies on the chips, by module."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from supernode.ir import Block, HostType, Program, TensorType, Value
from supernode.ops import is_view
from supernode.partition import parse_line
from supernode.plan import Layout, Mesh, Placement, Plan
from supernode.report.repeats import ops_once, order_of, pattern_of
from supernode.report.rows import Laid, Row, Rows


def activations(plan: Plan) -> tuple[Laid, ...]:
    """What the forward ops of each module compute, as its last view of it; largest pieces first.

    A view takes no memory of its own, and what a plan does not place (host numbers) is left out.
    Where stages have layouts of their own, the whole is that of a microbatch.
    """
    staged = bool(plan.mesh.stages)
    rows = Rows(plan.mesh if staged else Mesh((*plan.mesh.axes, *time_axes(plan))))
    for made in _in_stages(plan) if staged else _in_program(plan):
        row = Row("activation", pattern_of(made.module), made.whole, made.layout, False)
        rows.add(row, made.module, made.count, made.reason)
    laid = rows.laid()
    patterns, names = order_of(row.name for row in laid), [row.name for row in laid]
    places = {name: (patterns[pattern_of(name)], names.index(name)) for name in names}
    return tuple(sorted(laid, key=lambda row: (places[row.name], -row.piece.size_bytes)))


def time_axes(plan: Plan) -> tuple[tuple[str, int], ...]:
    """The axes whose parts run one after another, where layouts name them."""
    if plan.mesh.stages:
        return ()
    return tuple(
        (axis.name, axis.size) for axis in parse_line(plan.layout).axes if axis.scheme.time
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a module makes `count` times in a step."""

    module: str
    whole: TensorType
    layout: Layout
    count: int
    reason: str


def _in_stages(plan: Plan) -> Iterator[_Made]:
    """By the programs of the stages, which have the layouts of their own values."""
    for stage, (_, local) in enumerate(plan.stages()):
        placed = {(p.block, p.value): p for p in plan.placements if p.stage == stage}
        counts = local.counts()
        for block, value, module in _shown(local):
            found = placed.get((block.name, value.id))
            if found is not None:
                yield _Made(
                    module=module,
                    whole=TensorType(value.tensor.dtype, found.shape),
                    layout=found.layout,
                    count=counts.get(block.name, 1),
                    reason=found.reason,
                )


def _in_program(plan: Plan) -> Iterator[_Made]:
    """By the program for one chip: parts in time are calls of a block, or ops written out."""
    time = time_axes(plan)
    placements: dict[tuple[str, int], list[Placement]] = {}
    for each in plan.placements:
        placements.setdefault((each.block, each.value), []).append(each)
    calls = Counter[str]()
    for _, local in plan.stages():
        for name, count in local.counts().items():
            # Parts in time call forms of a block: `layers@first`, `layers@next`.
            calls[name.partition("@")[0]] += count
    for block, value, module in _shown(plan.program):
        whole = Layout.whole(len(value.tensor.shape))
        found = placements.get((block.name, value.id), [])
        if not plan.placements:  # one chip
            found = [Placement(block=block.name, value=value.id, layout=whole, reason="")]
        for number, each in enumerate(found):
            # The partition names the forms of a block in the order in which it places its values.
            form = f"{block.name}.{number}" if number else block.name
            axes = {*each.layout.split_axes, *dict(each.layout.partial)}
            parts = math.prod(size for name, size in time if name in axes)
            yield _Made(
                module=module,
                whole=value.tensor,
                layout=each.layout,
                count=calls[form] or parts,
                reason=each.reason,
            )


def _shown(program: Program) -> Iterator[tuple[Block, Value, str]]:
    """For each tensor that a forward op computes, its last whole view in the same module."""
    products = {block.name: _products(block) for block in program.all_blocks()}
    for block, op in ops_once(program):
        for value in op.outputs:
            shown = products[block.name].get(value.id)
            if shown is not None:
                yield block, shown, op.site.module


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
