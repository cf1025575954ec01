"""Schedules of a pipeline: complete, free of deadlock, and as idle as their closed forms say."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.partition.schedules import SCHEDULES, Slot
from supernode.plan import Task
from supernode.simulate.event_loop import run_tasks
from supernode.simulate.schedule import Lane

FORWARD_S, BACKWARD_S, WEIGHTS_S = 1.0, 2.0, 1.0
"""Of `BACKWARD_S` the gradients of weights are `WEIGHTS_S`, where they are a task of their own."""


def tasks_of(name: str, stages: int, chunks: int, parts: int) -> list[Task]:
    """All tasks, in the order of each stage, with what they wait for."""
    last = stages * chunks - 1
    tasks: list[Task] = []
    for stage in range(stages):
        for slot in SCHEDULES[name](stage, stages, chunks, parts):
            if slot.kind == "weights":
                before = [Slot("backward", slot.chunk, slot.part)]
            elif slot.kind == "forward":
                before = [Slot("forward", slot.chunk - 1, slot.part)] if slot.chunk else []
            elif slot.chunk == last:
                before = [Slot("forward", last, slot.part)]
            else:
                before = [Slot("backward", slot.chunk + 1, slot.part)]
            tasks.append(Task(id=slot, deps=tuple(before), stream=Lane(stage, "compute")))
    return tasks


def step_s(name: str, stages: int, chunks: int, parts: int) -> float:
    tasks = tasks_of(name, stages, chunks, parts)
    took_s = {"forward": FORWARD_S, "backward": BACKWARD_S, "weights": WEIGHTS_S}
    if name == "zb":
        took_s["backward"] -= WEIGHTS_S
    return run_tasks(tasks, [took_s[task.id.kind] / chunks for task in tasks]).step_s


SHAPES = st.tuples(st.integers(2, 6), st.integers(1, 3), st.integers(1, 4))


@given(name=st.sampled_from(sorted(SCHEDULES)), shape=SHAPES)
def test_every_task_is_done_once_and_none_waits_for_ever(name: str, shape: tuple[int, int, int]):
    stages, chunks, groups = shape
    parts = stages * groups
    tasks = tasks_of(name, stages, chunks, parts)
    slots = [
        Slot(kind, chunk, part)
        for kind in ("forward", "backward", *(("weights",) if name == "zb" else ()))
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


@pytest.mark.parametrize(("stages", "parts"), [(2, 2), (2, 4), (4, 8), (4, 4), (8, 32)])
def test_the_bubble_with_gradients_of_weights_put_off(stages: int, parts: int):
    """(S - 1)(F + B - W), B without W: Qi et al. 2024, section 2, with F = B = W."""
    work_s = parts * (FORWARD_S + BACKWARD_S)
    bubble_s = (stages - 1) * (FORWARD_S + BACKWARD_S - 2 * WEIGHTS_S)
    assert step_s("zb", stages, 1, parts) == pytest.approx(work_s + bubble_s)


@given(shape=SHAPES)
def test_gradients_of_weights_put_off_are_never_slower(shape: tuple[int, int, int]):
    stages, chunks, groups = shape
    assert step_s("zb", stages, chunks, stages * groups) < step_s(
        "1f1b", stages, chunks, stages * groups
    )


def ahead(name: str, stages: int, parts: int) -> int:
    """The most forwards of any stage whose backward has not come, whole."""
    last = "weights" if name == "zb" else "backward"
    most: list[int] = []
    for stage in range(stages):
        slots = SCHEDULES[name](stage, stages, 1, parts)
        held = accumulate((slot.kind == "forward") - (slot.kind == last) for slot in slots)
        most.append(max(held))
    return max(most)


def test_one_forward_one_backward_holds_as_many_parts_as_there_are_stages():
    assert ahead("1f1b", 4, 32) == ahead("zb", 4, 32) == 4
    assert ahead("gpipe", 4, 32) == 32
