"""Which storages the steps of a kernel touch: they become one program's scratch memory."""

from .steps import (
    AtomicRoot,
    Body,
    Branch,
    CopyRoot,
    Graph,
    Jump,
    Loop,
    Nest,
    ReduceRoot,
    Slot,
    Step,
    Storage,
    While,
)


def storages_of(step: Step) -> list[Storage]:
    """The storages `step` writes, without those of values in `Schedule.buffers`."""
    if isinstance(step, Nest):
        return _of_nest(step)
    if isinstance(step, Loop):
        return _of_bodies([step.body]) + _of_slots(step.results)
    if isinstance(step, Branch):
        return _of_bodies(step.arms) + _of_slots(step.results)
    if isinstance(step, While):
        return _of_bodies([step.before, step.after]) + _of_slots(step.results)
    if isinstance(step, Jump):
        return _of_bodies(step.edges)
    if isinstance(step, Graph):
        return _of_bodies(step.bodies) + _of_slots(step.results)
    return []


def _of_nest(nest: Nest) -> list[Storage]:
    found: list[Storage] = []
    for root in nest.roots:
        if isinstance(root, (CopyRoot, AtomicRoot)):
            found.append(root.buffer.storage)
        elif isinstance(root, ReduceRoot):
            found += [buffer.storage for buffer in root.buffers]
    return found


def _of_slots(slots: list[Slot]) -> list[Storage]:
    return [slot.buffer.storage for slot in slots if slot.buffer is not None]


def _of_bodies(bodies: list[Body]) -> list[Storage]:
    found: list[Storage] = []
    for body in bodies:
        found += _of_slots(body.slots)
        for step in body.steps:
            found += storages_of(step)
    return found
