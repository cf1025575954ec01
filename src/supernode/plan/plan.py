"""Plan: who computes what, where: a mesh, a layout for every value, one program for all chips."""

from collections.abc import Iterator
from dataclasses import dataclass

from supernode.errors import UnknownName, near_matches
from supernode.ir import Program, Value, print_program, verify
from supernode.plan.layout import Layout
from supernode.plan.mesh import Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How one value of the global Program is laid out, and why.

    `block` is the name of the block that defines the value (`main` or a repeated one).
    """

    block: str
    value: int
    layout: Layout
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One Program on one mesh.

    `local` is the program that every chip runs: the ops of `program` on local shapes, with
    `fabric.*` ops where chips talk and `local.*` ops that depend on the chip's coordinates.
    Its inputs and outputs match those of `program` one to one; `inputs[i]` and `outputs[i]` are
    their layouts (None for host numbers).
    """

    program: Program
    mesh: Mesh
    layout: str
    local: Program
    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    placements: tuple[Placement, ...]

    def __str__(self) -> str:
        head = f"plan {self.program.name} on {self.mesh} ({self.layout or 'one chip'})"
        layouts = dict(self._local_layouts())
        return head + "\n" + print_program(self.local, lambda v: layouts.get(v.id, ""))

    def _local_layouts(self) -> Iterator[tuple[int, str]]:
        for values, layouts in (
            (self.local.main.inputs, self.inputs),
            (self.local.main.outputs, self.outputs),
        ):
            for value, layout in zip(values, layouts, strict=True):
                if layout is not None:
                    yield value.id, f" {layout}"

    def explain(self, name: str) -> str:
        """How the input or output `name` (`lm_head.weight`) is laid out, and why.

        Raises:
            UnknownName: no input or output has that name; the nearest ones are given.
        """
        for ports, values, layouts in (
            (self.program.inputs, self.program.main.inputs, self.inputs),
            (self.program.outputs, self.program.main.outputs, self.outputs),
        ):
            for port, value, layout in zip(ports, values, layouts, strict=True):
                if port.name == name:
                    return self._explain(name, value, layout)
        known = [port.name for port in self.program.inputs + self.program.outputs]
        raise UnknownName(f"the plan has no value named {name!r}", fix=near_matches(name, known))

    def _explain(self, name: str, value: Value, layout: Layout | None) -> str:
        if layout is None:
            return f"{name}: {value.type}, the same on every chip"
        shape = value.tensor.shape
        local = layout.local_shape(shape, self.mesh)
        lines = [f"{name}: {value.type} {layout}, {list(local)} on each of {self.mesh.size} chips"]
        reasons = [p.reason for p in self.placements if (p.block, p.value) == ("main", value.id)]
        return "\n".join(lines + [f"  {reason}" for reason in reasons])


def verify_plan(plan: Plan) -> Plan:
    """`plan` itself when its local program is legal and matches its layouts."""
    verify(plan.local)
    main, local = plan.program.main, plan.local.main
    for whole, part, layouts in (
        (main.inputs, local.inputs, plan.inputs),
        (main.outputs, local.outputs, plan.outputs),
    ):
        for value, piece, layout in zip(whole, part, layouts, strict=True):
            if layout is not None:
                assert layout.local_shape(value.tensor.shape, plan.mesh) == piece.tensor.shape
                assert not layout.partial, f"{value} leaves the plan as a partial result"
    return plan
