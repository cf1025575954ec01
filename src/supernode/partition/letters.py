"""What one stage of a pipeline sends another of a different layout, and how it lies on each."""

from dataclasses import replace
from typing import TYPE_CHECKING

from supernode.errors import LayoutError
from supernode.ir import RECEIVE, SEND, HostType, Op, Value
from supernode.plan import Layout, fits, is_contiguous

if TYPE_CHECKING:
    from supernode.partition.walk import Walk


def letter(walk: "Walk", op: Op) -> None:
    """What one stage sends another, with its shape and how this stage has it."""
    emitter = walk.emitter
    (value,) = (*op.inputs, *op.outputs)
    if isinstance(value.type, HostType):
        dims, shape = (), ()
        if op.name == RECEIVE:
            emitter.hosts[value.id] = emitter.fresh(value.type)
        local = emitter.hosts[value.id]
    else:
        _check_crosses(walk, value, op)
        layout, shape = _sent_as(walk, value), value.type.shape
        dims = layout.dims
        if op.name == RECEIVE:
            local = emitter.fresh(emitter.local_type(value.type, layout))
            emitter.define(value, layout, local)
        else:
            local = emitter.get(value, layout, op.site)
    sent, received = ((local,), ()) if op.name == SEND else ((), (local,))
    emitter.ops.append(replace(op, args=(sent, *op.args[1:], dims, shape), outputs=received))


def _check_crosses(walk: "Walk", value: Value, op: Op) -> None:
    """Rows that each chip sorts for itself are in no order that other chips know."""
    at, routing = (walk.block.name, value.id), walk.routing
    if at in routing.pinned or at in routing.counts:
        raise LayoutError(
            "rows sorted by expert cross from one stage to another of a different layout",
            where=str(op.site),
            fix="cut before or behind the layer of experts: cut=layers.N",
        )


def _sent_as(walk: "Walk", value: Value) -> Layout:
    """How this stage has a value that crosses: as it is, if it can, else as its axes say."""
    held = walk.emitter.held.get(value.id)
    if held is not None and not held.layout.partial:
        return as_handed_out(held.layout, walk.emitter.time)
    if (wanted := walk.wanted.get(value.id)) is not None:
        return as_handed_out(wanted, walk.emitter.time)
    shape, mesh = value.tensor.shape, walk.emitter.mesh
    dims: list[tuple[str, ...]] = [()] * len(shape)
    for axis in walk.spreader.axes:
        ways = [
            (way[0], dim, way[1])
            for dim, size in enumerate(shape)
            for groups, part in walk.spreader.classes.parts(walk.block.name, value, dim).items()
            if (way := walk.spreader.way(axis.name, part, groups)) and is_contiguous(way[1])
            if fits((*dims[dim], way[1]), size, mesh)
        ]
        if ways:
            _, dim, each = min(ways)
            dims[dim] = (*dims[dim], each)
    return Layout(tuple(dims))


def as_handed_out(layout: Layout, time: tuple[str, ...]) -> Layout:
    """The same without partial results, parts in time and cuts of groups, as a plan may hand it
    out."""
    dims = tuple(dim if all(map(is_contiguous, dim)) else () for dim in layout.dims)
    plain = Layout(dims)
    for axis in time:
        plain = plain.without(axis)
    return plain
