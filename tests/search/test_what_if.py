import pytest

from report.laid import gpt_plan
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.search import best_changes
from supernode.search.what_if import machine_changes, neighbours
from supernode.simulate import Rehearsal, simulate

H100 = load_machine("hgx-h100")


def test_a_change_is_what_a_simulation_of_it_says():
    plan = gpt_plan("tp=2")
    present = simulate(plan, H100)
    changes = best_changes(Rehearsal(plan), H100, present)
    assert 1 <= len(changes) <= 3
    gains = [change.gain for change in changes]
    assert gains == sorted(gains, reverse=True)
    others = dict(machine_changes(H100))
    for change in changes:
        if change.name.startswith("layout "):
            other = partition(plan.program, change.name.removeprefix("layout "), 2)
            again = simulate(other, H100)
        else:
            again = simulate(plan, others[change.name])
        assert change.step_s == again.step_s
        assert change.gain == pytest.approx(1 - again.step_s / present.step_s)


def test_no_better_machine_is_slower():
    plan = gpt_plan("dp=2")
    present = simulate(plan, H100).step_s
    for name, machine in machine_changes(H100):
        assert simulate(plan, machine).step_s <= present * (1 + 1e-9), name


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("dp=8", {"zero1=8", "fsdp=8"}),
        ("fsdp=4,tp=2", {"fsdp=4,tp=2,sp", "fsdp=2,tp=4", "fsdp=8", "dp=4,tp=2"}),
        ("dp=2,tp=4,sp,micro=2,recompute=full", {"dp=4,tp=2,sp,micro=2,recompute=full"}),
        ("", set()),
    ],
)
def test_neighbours_are_one_step_away(line: str, some: set[str]):
    found = set(neighbours(line))
    assert some <= found
    assert line not in found
    assert bool(found) == bool(some)
