from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.capture import capture
from supernode.ir import CALL, Block, Op, Port, Program, Value, elsewhere
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import job_requests, memory, requests, run_memory, run_requests
from supernode.plan.memory import Early
from vectors import is_view, op, param, program, programs, vector

LAYOUTS = {
    "gpt-tiny": ("", "tp=2,sp", "pp=2,micro=2,offload=all@peers"),
    "llama-tiny": ("fsdp=2", "dp=2,micro=2,recompute=full", "pp=2,micro=4", "zero1=2"),
}


def held(lines: Iterable[Sequence[int]]) -> tuple[list[int], dict[int, int]]:
    """The bytes taken once each line has taken what it does, and what is left at the end by number.

    Each is given back at most once, after it was taken, and no line takes after it gives.
    """
    taken: list[int] = []
    there: dict[int, int] = {}
    found: list[int] = []
    for line in lines:
        takes = [request for request in line if request > 0]
        assert [*takes, *(r for r in line if r <= 0)] == list(line)
        for size in takes:
            there[len(taken)] = size
            taken.append(size)
        found.append(sum(there.values()))
        for request in line[len(takes) :]:
            del there[-request]
    return found, there


@given(programs())
def test_as_much_is_taken_at_each_op_as_liveness_counts(step: Program) -> None:
    begin, *during = held(requests(step, is_view))[0]
    use = memory(step, is_view)
    assert tuple(during) == use.timeline
    assert begin <= use.peak_bytes


@pytest.mark.parametrize("name", LAYOUTS)
def test_of_models_too_as_simulated_and_where_run_does_it(name: str) -> None:
    job = recipe(name).build()
    captured = capture(job.step, job.model, job.optimizer, job.inputs).program
    for layout in LAYOUTS[name]:
        for local in partition(captured, layout).programs:
            assert tuple(held(requests(local))[0][1:]) == memory(local).timeline, layout
            assert tuple(held(run_requests(local))[0][1:]) == run_memory(local).timeline, layout


@given(programs(), st.data())
def test_buffers_taken_early_are_counted_from_then_on(step: Program, data: st.DataObject) -> None:
    made = memory(step, is_view).timeline
    places = st.integers(0, len(made) - 1)
    drawn = data.draw(
        st.lists(st.tuples(places, places, st.sampled_from([100, 7, 900])), max_size=4)
    )
    early = [Early(first=a, last=b, size_bytes=size) for a, b, size in drawn]
    found, _ = held(requests(step, is_view, early=early))
    assert tuple(found[1:]) == memory(step, is_view, early=early).timeline


def test_a_buffer_taken_early_is_what_its_op_makes() -> None:
    w, a, b = vector(0, 1), vector(1, 10), vector(2, 20)
    step = program(((w, param()),), (op("f", a, w), op("f", b, w), op("f", vector(3, 5), b)))
    early = [Early(first=0, last=1, size_bytes=20)]
    assert list(requests(step, is_view, early=early)) == [[1], [20, 10, -2], [], [5, -1, -3]]


def test_what_lies_beside_is_taken_first_and_stays() -> None:
    step = program(((vector(0, 9), param()),), ())
    assert list(requests(step, is_view, beside=(30, 0, 40))) == [[30, 40, 9]]


def test_state_that_is_updated_stays_where_it_is() -> None:
    w, m, g, m2, w2 = vector(0, 8), vector(1, 4), vector(2, 8), vector(3, 4), vector(4, 8)
    ops = (
        op("f", g, w, phase="backward"),
        op("f", m2, m, phase="optimizer"),
        op("f", w2, w, m2, g, phase="optimizer"),
    )
    step = program(((w, param()), (m, param("m"))), ops, ((w2, 0), (m2, 1)))
    lines = list(requests(step, is_view))
    # What is computed is beside the state (numbers 3 and 4), and then in its place.
    assert lines == [[8, 4], [8], [4, -3], [8, -2, -4]]
    assert held(lines)[1] == {0: 8, 1: 4}


def test_state_that_a_call_updates_stays_where_it_is() -> None:
    w, w2 = vector(0, 8), vector(1, 8)
    body = Block(
        name="update", inputs=(w,), ops=(op("f", w2, w, phase="optimizer"),), outputs=(w2,)
    )
    values = [(vector(i, 8), vector(10 + i, 8)) for i in range(3)]
    calls = tuple(Op(name=CALL, block="update", args=(a,), outputs=(b,)) for a, b in values)
    step = program(
        tuple((a, param(f"w{i}")) for i, (a, _) in enumerate(values)),
        calls,
        tuple((b, i) for i, (_, b) in enumerate(values)),
        (body,),
    )
    assert held(requests(step))[1] == {0: 8, 1: 8, 2: 8}


def test_what_a_call_returns_is_given_back_outside() -> None:
    x, y = Value(0, vector(0, 8).type), vector(1, 30)
    body = Block(name="layer", inputs=(x,), ops=(op("f", y, x),), outputs=(y,))
    first, out = vector(1, 8), vector(2, 30)
    ops = (
        op("f", first, vector(0, 1)),
        Op(name=CALL, block="layer", args=(first,), outputs=(out,)),
        op("f", vector(3, 2), out),
    )
    step = program(((vector(0, 1), param()),), ops, (), (body,))
    assert list(requests(step, is_view)) == [[1], [8], [30, -1], [2, -2, -3]]


def test_what_a_call_does_not_read_is_given_back_when_it_begins() -> None:
    x, unread, y = vector(0, 8), vector(1, 5), vector(2, 30)
    body = Block(name="layer", inputs=(x, unread), ops=(op("f", y, x),), outputs=(y,))
    a, b, out = vector(1, 8), vector(2, 5), vector(3, 30)
    ops = (
        op("f", a, vector(0, 1)),
        op("f", b, vector(0, 1)),
        Op(name=CALL, block="layer", args=(a, b), outputs=(out,)),
        op("f", vector(4, 2), out),
    )
    step = program(((vector(0, 1), param()),), ops, (), (body,))
    assert list(requests(step, is_view)) == [[1], [8], [5, -2], [30, -1], [2, -3, -4]]
    assert memory(step, is_view).timeline == (9, 14, 39, 33)


def most(lines: Iterable[Sequence[int]]) -> list[int]:
    """The most bytes taken while each line is served."""
    taken: list[int] = []
    there: dict[int, int] = {}
    found: list[int] = []
    for line in lines:
        now = high = sum(there.values())
        for request in line:
            if request > 0:
                there[len(taken)] = request
                taken.append(request)
                now += request
            else:
                now -= there.pop(-request)
            high = max(high, now)
        found.append(high)
    return found


@given(programs())
def test_the_second_step_takes_what_one_step_takes(step: Program) -> None:
    timeline = memory(step, is_view).timeline
    trains = any(op.site.phase == "backward" for op in step.main.ops)
    during = most(job_requests(step, is_view, workspace_bytes=5000))
    workspaces = 2 * 5000 if trains else 5000
    assert during[-len(timeline) :] == [size + workspaces for size in timeline]
    assert len(during) == 1 + (2 * len(timeline) + 1 if trains else len(timeline))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_first_step_of_a_model_makes_the_state_of_its_optimizer(name: str) -> None:
    job = recipe(name).build()
    captured = capture(job.step, job.model, job.optimizer, job.inputs).program
    for layout in LAYOUTS[name]:
        for local in partition(captured, layout).programs:
            timeline, away = memory(local).timeline, elsewhere(local.main)
            state = sum(
                value.type.size_bytes
                for port, value in zip(local.inputs, local.main.inputs, strict=True)
                if port.role == "state" and value.id not in away
            )
            _, *during = most(job_requests(local))
            first, second = during[: -len(timeline)], during[-len(timeline) :]
            assert second == list(timeline), layout
            at = next((i for i, size in enumerate(first) if size != timeline[i] - state), None)
            if at is None:
                assert not state
            else:  # a line for the state stands between two ops
                assert first[at + 1 :] == list(timeline[at:]), layout


def test_workspace_is_taken_by_each_thread_and_state_where_it_is_read() -> None:
    w, m, h, g, m2, w2 = (vector(i, size) for i, size in enumerate((8, 4, 6, 8, 4, 8)))
    ops = (
        op("f", h, w),
        op("f", g, h, phase="backward"),
        op("f", m2, m, phase="optimizer"),
        op("f", w2, w, m2, g, phase="optimizer"),
    )
    state = Port(name="m", role="state", of="w")
    step = program(((w, param("w")), (m, state)), ops, ((w2, 0), (m2, 1), (g, None)))
    assert list(job_requests(step, is_view, beside=(3,), workspace_bytes=50)) == [
        [3, 50, 8],
        [6],
        [50],
        [8, -3],
        [4],
        [4, -7],
        [8, -8, -5],  # the gradient is returned, and let go when the next step begins
        [6],
        [8, -9],
        [4, -11],
        [8, -12],
    ]
