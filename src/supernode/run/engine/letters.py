"""What the stages of a pipeline send each other in a step, read off the Plan."""

import torch

from supernode.ir import SEND, HostType
from supernode.plan import Plan
from supernode.run.fabric import Group, Letter


def pipe_of(plan: Plan, rank: int) -> Group:
    """The chips, one a stage, that `rank` exchanges letters with; `rank` alone without stages."""
    if not plan.is_staged:
        return (rank,)
    axis, _ = plan.starts[0]
    return plan.mesh.group(rank, axis)


def letters_of(plan: Plan, rank: int) -> list[Letter]:
    """All that the chips of `pipe_of` send each other, in the order in which each sends."""
    group = pipe_of(plan, rank)
    letters: list[Letter] = []
    for source in group:
        for op in plan.local_of(source).main.ops:
            if op.name != SEND:
                continue
            (value,), (_, _, place, key) = op.inputs, op.args
            assert isinstance(place, int)
            assert isinstance(key, int)
            shape = () if isinstance(value.type, HostType) else value.type.shape
            dtype = getattr(torch, value.type.dtype)
            letter = Letter(source=source, target=group[place], key=key, shape=shape, dtype=dtype)
            letters.append(letter)
    return letters
