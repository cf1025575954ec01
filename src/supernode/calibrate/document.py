"""Comparisons as a document for --json."""

from collections.abc import Sequence
from typing import Any

from supernode.calibrate.compare import Comparison
from supernode.machine import Machine


def document(machine: Machine, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What was fitted, how well, and each comparison; times in seconds, errors as fractions."""
    return {
        "machine": machine.name,
        "title": machine.title,
        "fits": {name: _fit_error(rows, error) for name, rows, error in fit_errors(machine)},
        "comparisons": [_comparison(each) for each in comparisons],
    }


def fit_errors(machine: Machine) -> list[tuple[str, int, tuple[float, float]]]:
    """The name of each fit, the rows it did not see, and the median and 90th percentile there."""
    fits = dict(machine.chip.kernels)
    fits |= {f"{lv.name} links": lv.transport for lv in machine.levels if lv.transport is not None}
    return [(name, fit.rows, (fit.median_error, fit.p90_error)) for name, fit in fits.items()]


def _fit_error(rows: int, error: tuple[float, float]) -> dict[str, float]:
    return {"rows": rows, "median_abs_error": error[0], "p90_abs_error": error[1]}


def _comparison(each: Comparison) -> dict[str, Any]:
    return {
        "subject": each.subject,
        "chips": each.chips,
        "layout": each.layout,
        "steps": each.steps,
        "predicted_s": each.predicted_s,
        "low_s": each.low_s,
        "high_s": each.high_s,
        "measured_s": each.measured_s,
        "work_s": each.work_s,
        "time_error": each.time_error,
        "work_error": each.work_error,
        "covered": each.covered,
        "predicted_bytes": each.predicted_bytes,
        "measured_bytes": each.measured_bytes,
        "memory_error": each.memory_error,
        "op_error": each.op_error,
        "ops": {
            name: {"predicted_s": predicted, "measured_s": measured}
            for name, (predicted, measured) in each.ops.items()
        },
    }
