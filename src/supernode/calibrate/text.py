"""A calibration, and how well it predicts, as tables for a terminal."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from supernode.calibrate.compare import Comparison
from supernode.calibrate.document import fit_errors
from supernode.machine import Machine
from supernode.report.tables import new_table, spaced
from supernode.units import format_bytes, format_seconds, format_si


def machine_report(machine: Machine) -> RenderableType:
    """The rates that were measured, and how well the formulas fit."""
    chip, (level,) = machine.chip, machine.levels
    rates = new_table("a chip", "measured")
    for dtype, peak in chip.peak_flops_per_s.items():
        rates.add_row(f"products in {dtype}", format_si(peak.value, "FLOP/s"))
    rates.add_row("elementwise", format_si(chip.vector_flops_per_s.value, "FLOP/s"))
    rates.add_row("memory", format_si(chip.memory.bandwidth_bytes_per_s.value, "B/s"))
    rates.add_row("shortest op", format_seconds(chip.launch_overhead_s.value))
    if machine.host_step_s is not None:
        rates.add_row("host, a step", format_seconds(machine.host_step_s.value))
    if level.transport is not None:
        rates.add_row("links", format_si(level.bandwidth_bytes_per_s.value, "B/s"))
        rates.add_row("a message", format_seconds(level.latency_s.value))
    fits = new_table("fit", "rows held out", "median", "p90")
    for name, rows, (middle, most) in fit_errors(machine):
        fits.add_row(name, str(rows), f"{middle:.1%}", f"{most:.1%}")
    return spaced(rates, fits)


def comparison_report(comparisons: Sequence[Comparison]) -> RenderableType:
    """Predicted beside measured, a row for each step and number of chips."""
    times = new_table("step on chips", "predicted", "work", "error", "by the clock", "error")
    rest = new_table("step on chips", "memory", "error", "ops", "furthest off")
    for each in comparisons:
        name = f"{each.subject} on {each.chips}"
        times.add_row(
            name,
            format_seconds(each.predicted_s),
            format_seconds(each.work_s),
            f"{each.work_error:+.1%}",
            format_seconds(each.measured_s),
            f"{each.time_error:+.1%}",
        )
        rest.add_row(
            name,
            format_bytes(each.measured_bytes),
            f"{each.memory_error:+.1%}",
            f"{each.op_error:.1%}",
            each.worst_op.partition(".")[2][:28],
        )
    inside = sum(each.covered for each in comparisons)
    said = f"{inside} of {len(comparisons)} steps by the clock lie in the range that is stated"
    return spaced(times, rest, Text(said))
