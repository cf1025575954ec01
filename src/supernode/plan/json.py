"""A Plan as JSON and back, without loss."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from supernode.errors import VerifyError
from supernode.ir.json import program_in, program_out, read_document
from supernode.plan.layout import Layout
from supernode.plan.mesh import Mesh
from supernode.plan.plan import Placement, Plan, Starts, verify_plan

FORMAT = "supernode-plan-1"


def plan_to_json(plan: Plan) -> str:
    """One line of JSON with the global program, the local ones and every layout."""
    document = {
        "format": FORMAT,
        "mesh": _mesh_out(plan.mesh),
        "layout": plan.layout,
        "inputs": [_layout_out(layout) for layout in plan.inputs],
        "outputs": [_layout_out(layout) for layout in plan.outputs],
        "placements": [
            [each.block, each.value, _layout_out(each.layout), each.reason]
            + ([] if each.stage is None else [each.stage, list(each.shape)])
            for each in plan.placements
        ],
        "program": program_out(plan.program),
        "local": program_out(plan.local),
        "starts": _starts_out(plan.starts),
        "inside": [_starts_out(starts) for starts in plan.inside],
        "variants": [program_out(variant) for variant in plan.variants],
    }
    return json.dumps(document, separators=(",", ":"))


def plan_from_json(text: str) -> Plan:
    """The Plan that `plan_to_json` wrote.

    Raises:
        VerifyError: the text is not such a document, or what it holds is inconsistent.
    """
    document = read_document(text, FORMAT)
    try:
        plan = Plan(
            program=program_in(document["program"]),
            mesh=_mesh_in(document["mesh"]),
            layout=document["layout"],
            local=program_in(document["local"]),
            inputs=tuple(map(_layout_in, document["inputs"])),
            outputs=tuple(map(_layout_in, document["outputs"])),
            placements=tuple(map(_placement_in, document["placements"])),
            starts=_starts_in(document.get("starts", ())),
            inside=tuple(map(_starts_in, document.get("inside", ()))),
            variants=tuple(map(program_in, document.get("variants", ()))),
        )
        return verify_plan(plan)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise VerifyError(f"not a saved Plan: {error!r}") from error


def _starts_out(starts: Starts) -> list[Any]:
    return [[axis, list(each)] for axis, each in starts]


def _starts_in(data: Sequence[Any]) -> Starts:
    return tuple((axis, tuple(each)) for axis, each in data)


def _mesh_out(mesh: Mesh) -> list[Any]:
    """Axes; where stages differ, the axis along them with the axes of each in place of a size."""
    if mesh.stages:
        ((axis, _),) = mesh.axes
        return [[axis, [_mesh_out(stage) for stage in mesh.stages]]]
    return [list(axis) for axis in mesh.axes]


def _mesh_in(data: list[Any]) -> Mesh:
    if data and isinstance(data[0][1], list):
        ((axis, stages),) = data
        return Mesh.of_stages(axis, [_mesh_in(stage) for stage in stages])
    return Mesh(tuple((name, size) for name, size in data))


def _layout_out(layout: Layout | None) -> list[Any] | None:
    if layout is None:
        return None
    dims = [list(dim) for dim in layout.dims]
    pairs = ([list(each) for each in pairs] for pairs in (layout.partial, layout.only))
    return [dims, *pairs, *([layout.place] if layout.place else [])]


def _layout_in(data: list[Any] | None) -> Layout | None:
    if data is None:
        return None
    dims, partial, *more = data
    only = more[0] if more else ()
    return Layout(
        tuple(map(tuple, dims)),
        tuple((axis, kind) for axis, kind in partial),
        tuple((axis, coordinate) for axis, coordinate in only),
        place=more[1] if len(more) > 1 else "",
    )


def _placement_in(data: list[Any]) -> Placement:
    block, value, layout, reason, *inside = data
    placed = _layout_in(layout)
    if placed is None:
        raise VerifyError("a placement without a layout")
    found = Placement(block=block, value=value, layout=placed, reason=reason)
    return replace(found, stage=inside[0], shape=tuple(inside[1])) if inside else found
