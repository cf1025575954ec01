"""The state machine: order of streams, dependencies, nothing lost, nothing started twice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.plan import Progress, Task


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Task, ...]:
    """Tasks that depend on earlier ones only, on up to three streams."""
    count = draw(st.integers(0, 12))
    return tuple(
        Task(
            id=i,
            deps=tuple(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else (),
            stream=draw(st.integers(0, 2)),
        )
        for i in range(count)
    )


def _run(tasks: tuple[Task, ...], seed: int) -> tuple[list[int], list[int]]:
    """The orders of starts and finishes when completions come in the order of `seed`."""
    choose, progress = random.Random(seed), Progress(tasks)
    running = [task.id for task in progress.start()]
    started, finished = list(running), []
    while running:
        done = running.pop(choose.randrange(len(running)))
        finished.append(done)
        new = [task.id for task in progress.finish(done)]
        assert new == sorted(new)
        running += new
        started += new
    assert progress.done
    assert progress.stuck() == ()
    return started, finished


@given(tasks=tasks(), seed=st.integers(0, 5))
def test_every_task_runs_once_after_its_deps_and_in_turn_on_its_stream(tasks, seed):
    started, finished = _run(tasks, seed)
    assert sorted(started) == sorted(finished) == list(range(len(tasks)))
    for task in tasks:
        assert all(finished.index(dep) < finished.index(task.id) for dep in task.deps)
    for stream in range(3):
        on_it = [i for i in finished if tasks[i].stream == stream]
        assert on_it == sorted(on_it)


@given(tasks=tasks(), seed=st.integers(0, 5))
def test_the_same_completions_lead_to_the_same_starts(tasks, seed):
    assert _run(tasks, seed) == _run(tasks, seed)


@given(tasks=tasks())
def test_what_may_start_is_started_at_once(tasks):
    progress = Progress(tasks)
    at_once = {task.id for task in progress.start()}
    first: dict[object, int] = {}
    for i, task in enumerate(tasks):
        first.setdefault(task.stream, i)
    assert at_once == {i for i in first.values() if not tasks[i].deps}


def test_tasks_that_wait_for_each_other_are_stuck():
    # b comes first on its stream but waits for c, which waits for a, which is behind b.
    b = Task(id="b", deps=("c",), stream=0)
    a, c = Task(id="a", stream=0), Task(id="c", deps=("a",), stream=1)
    progress = Progress((b, a, c))
    assert progress.start() == ()
    assert progress.stuck() == (b, a, c)


def test_only_a_running_task_can_finish():
    progress = Progress((Task(id="a", stream=0), Task(id="b", stream=0)))
    progress.start()
    with pytest.raises(AssertionError, match="b is not running"):
        progress.finish("b")
    progress.finish("a")
    with pytest.raises(AssertionError, match="a is not running"):
        progress.finish("a")
