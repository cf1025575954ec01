"""Scheduling of control flow: loops, branches, early returns.

Values that cross a block boundary live in slots. Before a region, everything heavy it reads from
outside is computed, once.
"""

from typing import TYPE_CHECKING

from ..tile.ops import Op, Region, Value
from .steps import Assign, Body, Branch, Buffer, Graph, Jump, Loop, Single, Slot, While

if TYPE_CHECKING:
    from .schedule import Scheduler


def _enter(plan: "Scheduler", op: Op) -> None:
    """Before a region runs: finish memory accesses, and compute what the region will read."""
    plan.keep_loads()
    for value in plan.lifetimes.free_values(op):
        plan.finish(value)
        if value.type.is_tile and plan.is_heavy(value):
            plan.place(value)
    for value in op.operands:
        plan.finish(value)
    plan.flush()


def _slot(plan: "Scheduler", value: Value) -> Slot:
    """A slot that holds `value`: a buffer if it is a tile."""
    if not value.type.is_tile:
        return Slot(value, None)
    buffer = plan.buffers[value] = plan.fresh_buffer(value)
    return Slot(value, buffer)


def _assign(plan: "Scheduler", pairs: list[tuple[Slot, Value]]) -> None:
    scalars = plan.store_to_slots(pairs)
    if scalars:
        plan.steps.append(Assign(scalars))


def loop(plan: "Scheduler", op: Op) -> None:
    """`for lower, upper, step` with carried values."""
    _enter(plan, op)
    block = op.regions[0].block
    initial, carried = op.operands[3:], block.args[1:]
    slots: list[Slot] = []
    pairs: list[tuple[Slot, Value]] = []
    from_zero: list[tuple[Slot, Op]] = []
    for number, (value, first) in enumerate(zip(carried, initial, strict=True)):
        kept = _reusable_buffer(plan, op, first)
        if number in op.attrs["from_zero"]:
            slots.append(_slot(plan, value))
            from_zero.append((slots[-1], op.attrs["from_zero"][number]))
        elif kept is None:
            slots.append(_slot(plan, value))
            pairs.append((slots[-1], first))
        else:
            del plan.buffers[first]
            plan.buffers[value] = kept
            slots.append(Slot(value, kept))
    _assign(plan, pairs)
    body = Body("", slots)
    plan.targets.append(("yield", slots))
    plan.run_block(block, body)
    plan.targets.pop()
    for value, slot in zip(op.results, slots, strict=True):
        if slot.buffer is not None:
            plan.buffers[value] = slot.buffer
    results = [Slot(value, slot.buffer) for value, slot in zip(op.results, slots, strict=True)]
    plan.steps.append(Loop(op, body, results, from_zero))


def _reusable_buffer(plan: "Scheduler", op: Op, first: Value) -> Buffer | None:
    """The buffer in which a carried tile starts, if nothing but the loop's start reads it."""
    buffer = plan.buffers.get(first)
    if buffer is None or plan.dead_buffer_of(first) is not buffer or _carried(plan, buffer):
        return None
    if op.operands.count(first) > 1 or first in plan.lifetimes.free_values(op):
        return None
    return buffer


def _carried(plan: "Scheduler", buffer: object) -> bool:
    """Whether the buffer already is a slot of an enclosing region."""
    return any(slot.buffer is buffer for _, slots in plan.targets for slot in slots)


def branch(plan: "Scheduler", op: Op) -> None:
    """`if` with or without an else arm and results."""
    _enter(plan, op)
    results = [_slot(plan, value) for value in op.results]
    arms: list[Body] = []
    for region in op.regions:
        if not region.blocks or not region.block.ops:
            continue
        body = Body("", [])
        plan.targets.append(("yield", results))
        plan.run_block(region.block, body)
        plan.targets.pop()
        arms.append(body)
    plan.steps.append(Branch(op, arms, results))


def while_loop(plan: "Scheduler", op: Op) -> None:
    """`while`: a region that ends in a condition, then one that ends in a yield."""
    _enter(plan, op)
    before, after = op.regions[0].block, op.regions[1].block
    entry = [_slot(plan, value) for value in before.args]
    inner = [_slot(plan, value) for value in after.args]
    _assign(plan, list(zip(entry, op.operands, strict=True)))
    first, second = Body("", entry), Body("", inner)
    plan.targets.append(("condition", inner))
    condition = plan.run_block(before, first)[0]
    plan.targets[-1] = ("yield", entry)
    plan.run_block(after, second)
    plan.targets.pop()
    results: list[Slot] = []
    for value, slot in zip(op.results, inner, strict=True):
        if slot.buffer is not None:
            plan.buffers[value] = slot.buffer
        results.append(Slot(value, slot.buffer))
    plan.steps.append(While(op, first, condition, second, results))


def call(plan: "Scheduler", op: Op) -> None:
    """An inlined function with several blocks."""
    _enter(plan, op)
    results = [_slot(plan, value) for value in op.results]
    plan.steps.append(graph(plan, op.regions[0], results, op))


def graph(plan: "Scheduler", region: Region, results: list[Slot], op: Op | None = None) -> Graph:
    """Blocks that branch to each other; their arguments and `results` are slots."""
    bodies: list[Body] = []
    slots: dict[str, list[Slot]] = {}
    for index, block in enumerate(region.blocks):
        slots[block.label] = [] if index == 0 else [_slot(plan, value) for value in block.args]
        bodies.append(Body(block.label, slots[block.label]))
    outer = plan.block_slots
    plan.block_slots = slots
    plan.targets.append(("return", results))
    for block, body in zip(region.blocks, bodies, strict=True):
        plan.run_block(block, body)
    plan.targets.pop()
    plan.block_slots = outer
    return Graph(bodies, results, op)


def end_block(plan: "Scheduler", terminator: Op) -> None:
    """Writes what the terminator hands on to the slots that wait for it."""
    plan.flush()
    name, operands = terminator.name, terminator.operands
    if name == "br":
        slots = plan.block_slots[terminator.attrs["targets"][0]]
        _assign(plan, list(zip(slots, operands, strict=True)))
        plan.steps.append(Single(terminator))
    elif name == "cond_br":
        _conditional(plan, terminator)
    elif name == "condition":
        _assign(plan, list(zip(plan.targets[-1][1], operands[1:], strict=True)))
    else:
        _assign(plan, list(zip(plan.targets[-1][1], operands, strict=True)))
        if name == "return":
            plan.steps.append(Single(terminator))


def _conditional(plan: "Scheduler", terminator: Op) -> None:
    _, yes, _ = terminator.attrs["segments"]
    operands = terminator.operands[1:]
    edges: list[Body] = []
    steps = plan.steps
    for target, given in zip(
        terminator.attrs["targets"], (operands[:yes], operands[yes:]), strict=True
    ):
        edge = Body(target, [])
        plan.steps = edge.steps
        _assign(plan, list(zip(plan.block_slots[target], given, strict=True)))
        edges.append(edge)
    plan.steps = steps
    plan.steps.append(Jump(terminator, edges))
