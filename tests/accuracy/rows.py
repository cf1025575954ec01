"""Rows of the published files, by id, and small judgements made up for tests."""

from supernode.accuracy.case import Case, Regime
from supernode.accuracy.judge import Judged, Judgement
from supernode.accuracy.predict import Prediction
from supernode.accuracy.truth import Row, load_truth


def row(id_: str) -> Row:
    return next(row for row in load_truth() if row.id == id_)


def judged(
    id_: str,
    measured_s: float,
    predicted_s: float,
    *,
    source: str = "paper",
    regime: Regime = "training-dense",
    knobs: dict[str, str] | None = None,
    work: float = 1.0,
) -> Judged:
    """A row of one group, whose range is a fifth to each side."""
    case = Case(
        id=id_,
        source=source,
        regime=regime,
        machine="hgx-h100",
        measured_s=measured_s,
        parts=(),
        group=(source,),
        work=work,
        knobs=tuple((knobs or {}).items()),
    )
    prediction = Prediction(
        time_s=predicted_s,
        low_s=predicted_s / 1.2,
        high_s=predicted_s * 1.2,
        fits=True,
        causes_s={"matmul": predicted_s},
    )
    return Judged(case=case, prediction=prediction)


def judgement(*rows: Judged, repeated: dict[str, str] | None = None) -> Judgement:
    return Judgement(judged=rows, skipped=(), repeated=repeated or {})
