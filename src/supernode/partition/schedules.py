"""In which order a stage of a pipeline does its tasks: one pure function a schedule.

A task is the forward or backward of one microbatch in one chunk of the model; of backward, the
gradients of weights may be a task of their own. With V chunks a stage, chunk c lies on stage c
mod S. Each function gives the order of one stage's tasks; when each
may start is up to what it waits for.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["forward", "backward", "weights"]


class Slot(NamedTuple):
    """One task of a stage: what is done, in which chunk, for which microbatch."""

    kind: Kind
    chunk: int
    part: int

    def __str__(self) -> str:
        return f"{self.kind} {self.part} of chunk {self.chunk}"


Schedule = Callable[[int, int, int, int], list[Slot]]
"""From (stage, stages, chunks a stage, microbatches) to the stage's tasks in order."""


def gpipe(stage: int, stages: int, chunks: int, parts: int) -> list[Slot]:
    """All forwards, then all backwards.

    **Source:** Huang et al., "GPipe", NeurIPS 2019, section 2.3.
    """
    own = [stage + k * stages for k in range(chunks)]
    forward = [Slot("forward", chunk, part) for chunk in own for part in range(parts)]
    backward = [Slot("backward", chunk, part) for chunk in own[::-1] for part in range(parts)]
    return forward + backward


def one_forward_one_backward(stage: int, stages: int, chunks: int, parts: int) -> list[Slot]:
    """As few forwards ahead as keep the next stages at work, then one backward for each forward.

    With several chunks a stage it is interleaved: microbatches go through a chunk in groups as
    large as there are stages.

    **Source:** Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters
    Using Megatron-LM", SC 2021, sections 2.2.1 and 2.2.2.
    """
    total = parts * chunks
    ahead = stages - stage - 1
    if chunks > 1:
        ahead = 2 * ahead + (chunks - 1) * stages
    ahead = min(ahead, total)
    order = _groups(stage, stages, chunks, parts)
    forward = [Slot("forward", chunk, part) for chunk, part in order]
    last = (chunks - 1) * stages + 2 * stage
    backward = [Slot("backward", last - chunk, part) for chunk, part in order]
    slots = forward[:ahead]
    for done, more in enumerate(forward[ahead:]):
        slots += (more, backward[done])
    return slots + backward[total - ahead :]


def zero_bubble(stage: int, stages: int, chunks: int, parts: int) -> list[Slot]:
    """As 1F1B, with the gradients of weights put off: stage i is i microbatches late with them.

    So each stage hands on gradients sooner, and has something to do while it waits for those of the
    last microbatches. No stage holds more than the first one of 1F1B does. This is ZB-H1.

    **Source:** Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, section 2.
    """
    slots: list[Slot] = []
    late: list[Slot] = []
    for slot in one_forward_one_backward(stage, stages, chunks, parts):
        slots.append(slot)
        if slot.kind == "backward":
            late.append(Slot("weights", slot.chunk, slot.part))
            if len(late) > stage:
                slots.append(late.pop(0))
    return slots + late


def _groups(stage: int, stages: int, chunks: int, parts: int) -> list[tuple[int, int]]:
    """(chunk, microbatch) in the order in which a stage comes to them."""
    if chunks == 1:
        return [(stage, part) for part in range(parts)]
    return [
        (stage + k * stages, part)
        for first in range(0, parts, stages)
        for k in range(chunks)
        for part in range(first, min(first + stages, parts))
    ]


SCHEDULES: dict[str, Schedule] = {
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
    "zb": zero_bubble,
}
"""By the name that a layout line gives, `schedule=1f1b`."""
