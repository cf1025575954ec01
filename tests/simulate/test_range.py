from dataclasses import replace

import pytest

from report.laid import gpt_plan
from supernode.machine import load_machine
from supernode.simulate import Simulation, simulate, time_range


@pytest.fixture(scope="module")
def sim() -> Simulation:
    return simulate(gpt_plan("dp=2"), load_machine("hgx-h100"))


def test_a_range_holds_its_time_and_is_as_wide_up_as_down(sim: Simulation):
    low, high = time_range(sim)
    assert low < sim.step_s < high
    assert high / sim.step_s == pytest.approx(sim.step_s / low)


def test_the_weaker_its_numbers_the_wider_a_range(sim: Simulation):
    widths = [
        time_range(replace(sim, by_kind={kind: sim.step_s}))[1] / sim.step_s
        for kind in ("measured", "datasheet", "inferred", "guessed")
    ]
    assert widths == sorted(widths)
    assert widths[0] > 1.15  # what is left out is never nothing


def test_errors_of_unlike_kinds_cancel_in_part(sim: Simulation):
    half = sim.step_s / 2
    mixed = time_range(replace(sim, by_kind={"guessed": half, "measured": half}))[1]
    alike = time_range(replace(sim, by_kind={"guessed": sim.step_s}))[1]
    assert mixed < alike
