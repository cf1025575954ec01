from hypothesis import given
from hypothesis import strategies as st

from supernode.simulate.event import EventQueue


def drained(queue: EventQueue) -> list[int]:
    tasks: list[int] = []
    while queue:
        tasks.append(queue.pop().task)
    return tasks


def test_two_simultaneous_events_keep_their_order() -> None:
    queue = EventQueue()
    for task in (7, 3, 5):
        queue.push(1.0, 0, task)
    assert drained(queue) == [7, 3, 5]


def test_priority_goes_before_order_and_time_before_priority() -> None:
    queue = EventQueue()
    queue.push(1.0, 1, 10)
    queue.push(1.0, 0, 11)
    queue.push(0.5, 1, 12)
    assert drained(queue) == [12, 11, 10]


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 2))))
def test_events_come_out_as_a_stable_sort_would_put_them(pushed: list[tuple[float, int]]) -> None:
    queue = EventQueue()
    for task, (time_s, priority) in enumerate(pushed):
        queue.push(time_s, priority, task)
    assert drained(queue) == sorted(range(len(pushed)), key=lambda task: pushed[task])
