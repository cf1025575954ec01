from collections.abc import Callable
from dataclasses import replace

from supernode.plan import Mesh
from supernode.report import as_text, comparison_report, machines_report, simulation_report
from supernode.report.text import figures_of
from supernode.simulate import Simulation, simulate
from tiny import layered, machine, plan

Golden = Callable[[str, str], None]


def simulation(name: str = "tiny", capacity_bytes: float = 1e9) -> Simulation:
    local = plan(layered(6, side=512, reduce_over="dp"), Mesh((("dp", 4),)))
    return simulate(local, machine(name=name, capacity_bytes=capacity_bytes), tokens=2048)


def test_a_simulation(golden: Golden) -> None:
    golden("report_simulation.txt", as_text(simulation_report(simulation())))


def test_a_simulation_that_does_not_fit_shows_what_it_needs_and_no_time(golden: Golden) -> None:
    text = as_text(simulation_report(simulation("small", 4e6)))
    golden("report_does_not_fit.txt", text)
    assert "needs 10.5 MB of 4 MB per chip" in text
    assert "step time" not in text
    assert " ms" not in text


def test_a_comparison(golden: Golden) -> None:
    sims = [simulation(), simulation("small", 4e6), replace(simulation("silent"), tokens=None)]
    golden("report_comparison.txt", as_text(comparison_report(sims)))


def test_the_machines(golden: Golden) -> None:
    old = machine(name="older")
    chip = replace(old.chip, peak_flops_per_s={"float16": old.chip.peak("float32")})
    machines = [machine(), replace(old, chip=chip)]
    golden("report_machines.txt", as_text(machines_report(machines)))


def test_a_text_is_as_wide_as_it_is_told() -> None:
    sims = [simulation(f"machine-with-a-long-name-{i}") for i in range(6)]
    for width in (80, 120):
        lines = as_text(comparison_report(sims), width).splitlines()
        assert max(map(len, lines)) <= width


def test_what_takes_no_time_has_a_report() -> None:
    empty = simulate(plan(layered(0), Mesh(())), machine())
    assert "0 s" in as_text(simulation_report(empty))


def test_the_main_figures_hold_no_time_where_it_does_not_fit() -> None:
    assert dict(figures_of(simulation()))["waits most for"] == "matmul"
    assert [label for label, _ in figures_of(simulation("small", 4e6))] == ["memory per chip"]
