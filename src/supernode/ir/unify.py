"""Equal views of one value become one: the three projections of an attention read the same rows."""

from dataclasses import replace

from supernode.ir.program import Op, Program, renamed
from supernode.ir.types import Arg, Value
from supernode.ir.verify import verify

VIEWS = frozenset(
    {
        "aten.permute",
        "aten.t",
        "aten.transpose.int",
        "aten.unsqueeze",
        "aten.view",
    }
)
"""Ops whose result shares its operand's memory and depends on nothing else."""


def unify_views(program: Program) -> Program:
    """`program` without views that its `main` takes twice in one phase; results are unchanged.

    What is kept for the backward pass, and what has to be moved between chips, is then one value.
    """
    mapping: dict[int, Value] = {value.id: value for value in program.main.inputs}
    first: dict[tuple[Arg, ...], Value] = {}
    kept: list[Op] = []
    for op in program.main.ops:
        op = renamed(op, mapping)
        if op.name in VIEWS:
            (out,) = op.outputs
            known = first.setdefault((op.name, op.site.phase, op.args, op.kwargs), out)
            mapping[out.id] = known
            if known is not out:
                continue
        else:
            mapping.update((value.id, value) for value in op.outputs)
        kept.append(op)
    outputs = tuple(mapping[value.id] for value in program.main.outputs)
    main = replace(program.main, ops=tuple(kept), outputs=outputs)
    return verify(replace(program, main=main))
