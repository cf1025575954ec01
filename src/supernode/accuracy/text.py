"""A judgement as tables for a terminal."""

from rich.console import RenderableType
from rich.text import Text

from supernode.accuracy.judge import Judgement
from supernode.accuracy.page import NONE
from supernode.accuracy.score import by_regime, ranking, scored
from supernode.report.tables import new_table, spaced

WIDE = 34
"""Longer names of rows are cut, so that a line fits 80 columns."""
MOST = 12
"""So many of the rows furthest off are shown."""


def accuracy_report(judgement: Judgement) -> RenderableType:
    """Errors by regime, and the rows that are furthest off."""
    table = new_table("rows of", "rows", "skipped", "median", "p90", "bias", "covered")
    for each in by_regime(judgement):
        errors = (each.median_abs_error, each.p90_abs_error)
        table.add_row(
            each.name,
            str(each.rows),
            str(each.skipped),
            *(NONE if error is None else f"{error:.1%}" for error in errors),
            NONE if each.bias is None else f"{each.bias:+.1%}",
            NONE if each.covered is None else f"{each.covered:.0%}",
        )
    worst = new_table("furthest off", "machine", "measured", "predicted", "error")
    by_error = sorted(scored(judgement), key=lambda each: -abs(each.error))
    for each in by_error[:MOST]:
        worst.add_row(
            each.case.id if len(each.case.id) <= WIDE else f"{each.case.id[: WIDE - 1]}…",
            each.case.machine,
            f"{each.case.measured_s:.4g}",
            f"{each.prediction.time_s:.4g}",
            f"{each.error:+.1%}",
        )
    order = ranking(scored(judgement))
    if order.ordered is None:
        return spaced(table, worst)
    said = f"{order.ordered:.1%} of {order.pairs} pairs of like rows are in the measured order"
    return spaced(table, worst, Text(said))
