"""A judgement as one JSON document."""

from dataclasses import asdict
from typing import Any

from supernode.accuracy.case import REGIMES, steps_of
from supernode.accuracy.judge import Judged, Judgement
from supernode.accuracy.score import by_regime, changes, ranking, scored, without_each_source


def document(judgement: Judgement) -> dict[str, Any]:
    """Errors by regime, then every row. Times in seconds, errors as fractions of the measured
    time; `covered` is the share of rows in the stated range, for a row whether it is."""
    found = scored(judgement)
    return {
        "regimes": [
            {
                "regime": each.name,
                "rows": each.rows,
                "skipped": each.skipped,
                "median_abs_error": each.median_abs_error,
                "p90_abs_error": each.p90_abs_error,
                "bias": each.bias,
                "covered": each.covered,
                "left_when_cancelled": each.left,
                "median_without_source": dict(without_each_source(judgement, regime)),
                "worst": each.worst,
            }
            for regime, each in zip(REGIMES, by_regime(judgement), strict=True)
        ],
        "ranking": asdict(ranking(found)),
        "changes": [asdict(each) for each in changes(found)],
        "rows": [
            *(_row(each, judgement.repeated.get(each.case.id)) for each in judgement.judged),
            *(
                {
                    "id": each.id,
                    "source": each.source,
                    "machine": each.machine,
                    "regime": each.regime,
                    "skipped": each.reason,
                }
                for each in judgement.skipped
            ),
        ],
    }


def _row(each: Judged, repeated_by: str | None) -> dict[str, Any]:
    case, prediction = each.case, each.prediction
    return {
        "id": case.id,
        "source": case.source,
        "machine": case.machine,
        "regime": case.regime,
        "layout": ", ".join(step.layout for _, spec in case.parts for step in steps_of(spec)),
        "measured_s": case.measured_s,
        "predicted_s": prediction.time_s,
        "low_s": prediction.low_s,
        "high_s": prediction.high_s,
        "error": each.error,
        "covered": each.covered,
        "fits": prediction.fits,
        "predicted_s_by_cause": prediction.causes_s,
        "repeated_by": repeated_by,
        "skipped": None,
    }
