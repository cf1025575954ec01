"""Schedules of a pipeline: complete, free of deadlock, and as idle as their closed forms say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.partition.schedules import SCHEDULES, Slot
from supernode.plan import Task
from supernode.simulate.event_loop import run_tasks
from supernode.simulate.schedule import Lane

FORWARD_S, BACKWARD_S = 1.0, 2.0


def tasks_of(name: str, stages: int, chunks: int, parts: int) -> list[Task]:
    """All tasks, in the order of each stage, with what they wait for."""
    last = stages * chunks - 1
    tasks: list[Task] = []
    for stage in range(stages):
        for slot in SCHEDULES[name](stage, stages, chunks, parts):
            if slot.kind == "forward":
                before = [Slot("forward", slot.chunk - 1, slot.part)] if slot.chunk else []
            elif slot.chunk == last:
                before = [Slot("forward", last, slot.part)]
            else:
                before = [Slot("backward", slot.chunk + 1, slot.part)]
            tasks.append(Task(id=slot, deps=tuple(before), stream=Lane(stage, "compute")))
    return tasks


def step_s(name: str, stages: int, chunks: int, parts: int) -> float:
    tasks = tasks_of(name, stages, chunks, parts)
    seconds = [(FORWARD_S if task.id.kind == "forward" else BACKWARD_S) / chunks for task in tasks]
    return run_tasks(tasks, seconds).step_s


SHAPES = st.tuples(st.integers(2, 6), st.integers(1, 3), st.integers(1, 4))


@given(name=st.sampled_from(sorted(SCHEDULES)), shape=SHAPES)
def test_every_task_is_done_once_and_none_waits_for_ever(name: str, shape: tuple[int, int, int]):
    stages, chunks, groups = shape
    parts = stages * groups
    tasks = tasks_of(name, stages, chunks, parts)
    slots = [
        Slot(kind, chunk, part)
        for kind in ("forward", "backward")
        for chunk in range(stages * chunks)
        for part in range(parts)
    ]
    assert sorted(task.id for task in tasks) == sorted(slots)
    assert step_s(name, stages, chunks, parts) > 0


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "parts"), [(2, 4), (4, 8), (4, 4), (8, 32)])
def test_the_bubble_of_equal_stages(name: str, stages: int, parts: int):
    """S - 1 forwards and backwards: Huang et al. 2019, 2.3; Narayanan et al. 2021, 2.2.1."""
    work_s = parts * (FORWARD_S + BACKWARD_S)
    bubble_s = (stages - 1) * (FORWARD_S + BACKWARD_S)
    assert step_s(name, stages, 1, parts) == pytest.approx(work_s + bubble_s)


@pytest.mark.parametrize(("stages", "chunks", "parts"), [(2, 2, 4), (4, 2, 8), (4, 4, 16)])
def test_interleaving_divides_the_bubble(stages: int, chunks: int, parts: int):
    """By the number of chunks a stage: Narayanan et al. 2021, section 2.2.2."""
    work_s = parts * (FORWARD_S + BACKWARD_S)
    bubble_s = (stages - 1) * (FORWARD_S + BACKWARD_S) / chunks
    assert step_s("1f1b", stages, chunks, parts) == pytest.approx(work_s + bubble_s)


def ahead(name: str, stages: int, parts: int) -> int:
    """The most forwards of stage 0 whose backward has not come."""
    held = most = 0
    for slot in SCHEDULES[name](0, stages, 1, parts):
        held += 1 if slot.kind == "forward" else -1
        most = max(most, held)
    return most


def test_one_forward_one_backward_holds_as_many_parts_as_there_are_stages():
    assert ahead("1f1b", 4, 32) == 4
    assert ahead("gpipe", 4, 32) == 32
