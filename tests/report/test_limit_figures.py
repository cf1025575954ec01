"""Figures that say why: all of the step, all that is sent, and no op above its roof."""

import pytest

from supernode.plan import Mesh
from supernode.report.limit_figures import (
    levels_figure,
    limits_figure,
    roofline_figure,
    roofline_points,
)
from supernode.simulate import limits, simulate
from supernode.trace import COMPUTE
from tiny import layered, machine, plan

MACHINE = machine()
SIM = simulate(plan(layered(3, reduce_over="dp"), Mesh((("dp", 4),))), MACHINE, tokens=100)


def test_the_limits_are_the_whole_step() -> None:
    bars = limits_figure(SIM, limits(SIM, MACHINE)).data
    assert sum(bar.x[0] for bar in bars) == pytest.approx(1)


def test_the_roofline_shows_all_flop_below_the_roofs() -> None:
    points = roofline_points(SIM)
    spans = [span for span in SIM.trace.spans if span.stream == COMPUTE]
    assert sum(point.flops for point in points) == pytest.approx(sum(span.flops for span in spans))
    bandwidth = MACHINE.chip.memory.bandwidth_bytes_per_s.value
    for point in points:
        peak = MACHINE.chip.peak(SIM.dtype).value
        assert point.flops_per_s <= min(peak, point.intensity * bandwidth) * (1 + 1e-9)


def test_layers_are_one_point() -> None:
    assert ("layers.*.mlp", 3) in {(point.module, point.count) for point in roofline_points(SIM)}
    shown = roofline_figure(SIM).data
    assert sum(len(each.x) for each in shown if each.mode == "markers") == len(roofline_points(SIM))


def test_the_levels_show_all_that_is_sent() -> None:
    bars = levels_figure(SIM).data
    sent = sum(amount for bar in bars for amount in bar.x)
    assert sent * 1e9 == pytest.approx(sum(SIM.sent_bytes.values()))
