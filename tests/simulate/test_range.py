from dataclasses import replace

import pytest

from report.laid import gpt_plan
from supernode.capture import capture
from supernode.machine import Fit, Machine, load_machine
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Doubt, Simulation, Terms, range_of, simulate

H100 = load_machine("hgx-h100")


@pytest.fixture(scope="module")
def sim() -> Simulation:
    return simulate(gpt_plan("dp=2"), H100)


def served(phase: str, name: str = "gpt-tiny") -> Plan:
    job = recipe(name).build(batch=2, device="meta", phase=phase)
    return partition(capture(job.step, job.model, (), job.inputs).program, "")


def reasons(sim: Simulation) -> set[str]:
    return {doubt.reason for doubt in sim.doubts}


def width(sim: Simulation) -> float:
    return sim.range_s[1] / sim.step_s


def test_a_range_holds_its_time_and_is_as_wide_up_as_down(sim: Simulation):
    low, high = sim.range_s
    assert low < sim.step_s < high
    assert high / sim.step_s == pytest.approx(sim.step_s / low)


def test_what_is_left_out_concerns_the_whole_step(sim: Simulation):
    (left_out,) = (doubt for doubt in sim.doubts if doubt.reason == "left out")
    assert sim.doubts[left_out] == pytest.approx(sim.step_s)
    assert max(sim.doubts.values()) == sim.doubts[left_out]


def test_doubts_that_concern_parts_cancel_in_part():
    whole = Doubt("all", 0.15)
    one = range_of(1.0, {whole: 1.0, Doubt("a", 0.4): 1.0})
    two = range_of(1.0, {whole: 1.0, Doubt("a", 0.4): 0.5, Doubt("b", 0.4): 0.5})
    assert two[1] < one[1]
    assert one[1] == pytest.approx(1 + (0.15**2 + 0.4**2) ** 0.5)


def with_error(machine: Machine, error: float) -> Machine:
    """The same machine, whose kernels fit so well."""

    def so(fit: Fit) -> Fit:
        return replace(fit, p90_error=error)

    kernels = {name: so(fit) for name, fit in machine.chip.kernels.items()}
    return replace(machine, chip=replace(machine.chip, kernels=kernels))


def test_the_worse_a_fit_the_wider_the_range():
    plan = gpt_plan("")
    widths = [width(simulate(plan, with_error(H100, error))) for error in (0.05, 0.2, 0.5)]
    assert widths == sorted(widths)
    assert widths[0] > 1.15  # what is left out is never nothing
    assert widths[2] > widths[1] + 0.05


def test_numbers_that_were_carried_over_widen_it():
    plan = gpt_plan("")
    inferred = simulate(plan, load_machine("hgx-h800"))
    assert "inferred numbers" in reasons(inferred)
    assert width(inferred) > width(simulate(plan, H100))


def test_who_serves_by_which_software_is_not_known(sim: Simulation):
    for phase in ("prefill", "decode"):
        answer = simulate(served(phase), H100)
        assert "serving software" in reasons(answer)
        assert width(answer) > 1.5
    assert "serving software" not in reasons(sim)


def test_experts_may_get_uneven_loads():
    found = recipe("mixtral-8x7b").with_shape({"layers": 1})
    job = found.build(batch=1, device="meta", sequence=128)
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    plan = partition(program, "")
    even, stated = (simulate(plan, H100, terms=Terms(imbalance=x)) for x in (1.0, 1.3))
    assert "even experts" in reasons(even)
    assert "even experts" not in reasons(stated)


def test_tiny_ops_and_kernels_that_nobody_measured_widen_it(sim: Simulation):
    assert "tiny ops" in reasons(sim)
    fits = {k: fit for k, fit in H100.chip.kernels.items() if not k.startswith("matmul")}
    unknown = replace(H100, chip=replace(H100.chip, kernels=fits))
    answer = simulate(gpt_plan(""), unknown)
    assert "unmeasured kernels" in reasons(answer)


def test_a_machine_of_rates_alone_is_doubted_by_their_kinds():
    level = replace(H100.levels[0], transport=None)
    plain = replace(H100, chip=replace(H100.chip, kernels={}), levels=(level,))
    found = reasons(simulate(gpt_plan("dp=2"), plain))
    assert {"datasheet numbers", "guessed numbers"} & found
    assert not {"fit of kernels", "unmeasured kernels"} & found


def test_how_experts_are_trained_is_software_that_changes():
    shape = {"layers": 2, "hidden": 64, "ffn": 32, "heads": 2, "kv_heads": 2, "experts": 4}
    job = recipe("qwen3-30b-a3b").with_shape({**shape, "topk": 2, "vocab": 64, "head_dim": 32})
    built = job.build(batch=2, device="meta", sequence=16)
    program = capture(built.step, built.model, built.optimizer, built.inputs).program
    mixed = simulate(partition(program, ""), H100)
    assert "software for experts" in reasons(mixed)
    assert "left out" not in reasons(mixed)
