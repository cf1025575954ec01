"""A host whose times follow from a machine is found again as a machine with those times."""

from dataclasses import replace

import pytest

from report.laid import gpt_plan
from supernode import ops
from supernode.calibrate import Hardware, Measured, calibrated
from supernode.calibrate.measure import Sample, Transfer
from supernode.calibrate.probes import REPEATS, link_probes, op_probes
from supernode.ir import Op
from supernode.kernels import executed_ops
from supernode.machine import Machine, load_machine, parse_machine, to_toml
from supernode.simulate import collective_time, limits, op_time, simulate
from supernode.simulate.collective_time import COLLECTIVE_OF, carried

HARDWARE = Hardware(model="Example CPU @ 2 GHz", cores=2, memory_bytes=16_000_000_000)


def _host(chips: int) -> Machine:
    """A thousandth of an H100: what such a host would be."""
    known = load_machine("hgx-h100")
    chip = known.chip.split(1000, "a small one")
    one = replace(known.levels[0], transport=None)
    return replace(known, chip=replace(chip, kernels={}), levels=(one,)).with_chips(chips)


def _timed(host: Machine) -> Measured:
    """What would be measured there."""
    chips = host.chips
    samples = {
        (op.name, cost): op_time(cost, host.chip).time_s
        for probe in op_probes(chips, quick=False)
        for op in executed_ops(probe.plan.local)
        for cost in [ops.cost(op)]
        if cost.unit != "none"
    }
    transfers = [
        _transfer(host, op)
        for probe in (link_probes(chips, quick=False) if chips > 1 else ())
        for op in executed_ops(probe.plan.local)[::REPEATS]
    ]
    return Measured(
        chips=chips,
        threads=1,
        ops=tuple(Sample(name, cost, time_s) for (name, cost), time_s in samples.items()),
        transfers=tuple(transfers),
        step_s=1e-4,
    )


def _transfer(host: Machine, op: Op) -> Transfer:
    kind = COLLECTIVE_OF[op.name]
    size_bytes = float(sum(value.type.size_bytes for value in carried(op)))
    timing = collective_time(kind, size_bytes, machine=host, stride=1, size=host.chips)
    return Transfer(kind, host.chips, size_bytes, timing.time_s)


@pytest.mark.slow
@pytest.mark.parametrize("chips", [1, 2])
def test_a_known_host_is_found_again(chips: int):
    host = _host(chips)
    found = calibrated(_timed(host), HARDWARE, date="2026-11-27", torch="2", say=lambda _: None)
    assert parse_machine(to_toml(found), "host.toml") == found
    errors = {name: fit.median_error for name, fit in found.chip.kernels.items()}
    # That host's attention does not skip what a mask hides, as the formula that is fitted does.
    assert errors.pop("attention.float32") < 0.4
    assert max(errors.values()) < 0.02
    assert all(level.transport.median_error < 0.1 for level in found.levels if level.transport)
    plan = gpt_plan("" if chips == 1 else "dp=2")
    mine, theirs = simulate(plan, found), simulate(plan, host)
    assert mine.step_s == pytest.approx(theirs.step_s, rel=0.5)
    births = {number.kind for _, number in found.numbers()}
    assert births == {"measured", "guessed"}
    assert {number.date for _, number in found.numbers()} == {"2026-11-27"}
    assert "torch 2, 1 thread a chip" in found.sources[0].title


def test_a_host_computes_or_communicates():
    machine = load_machine("hgx-h100")
    apart = replace(machine, chip=replace(machine.chip, overlaps=False))
    plan = gpt_plan("dp=2")
    both, one = simulate(plan, machine), simulate(plan, apart)
    assert one.step_s >= both.step_s
    assert {span.stream for span in one.trace.spans} <= {"compute", "host"}
    assert limits(one, apart)["all_reduce"] > 0
