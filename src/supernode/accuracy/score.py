"""How good the predictions of a judgement are: errors by regime and source, order, changes.

An error is predicted over measured time, minus 1. Rows that a later one of their source repeats are
not scored. Rows skipped count as rows: what is refused is not predicted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from statistics import mean, median

from supernode.accuracy.case import REGIMES, Regime
from supernode.accuracy.judge import Judged, Judgement

NEAR = 0.3
"""A predicted change within this part of the measured one counts as right in size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of some rows; all but the counts are None where no row was predicted.

    `left` is what remains when errors of unlike sign cancel: |sum of errors| / sum of |errors|.
    """

    name: str
    rows: int
    skipped: int
    median_abs_error: float | None
    p90_abs_error: float | None
    bias: float | None
    left: float | None
    covered: float | None
    worst: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Over groups of rows that differ in layout or batch alone: pairs in the right order, and how
    much less work a second the predicted best does than the measured best."""

    pairs: int
    ordered: float | None
    groups: int
    mean_regret: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Pairs of rows that differ in one knob: the share whose predicted change has the measured
    sign, and the median of how far off its size is, as a part of the measured change."""

    knob: str
    pairs: int
    same_sign: float | None
    median_size_error: float | None


def scored(judgement: Judgement) -> list[Judged]:
    """The rows that count."""
    return [each for each in judgement.judged if each.case.id not in judgement.repeated]


def by_regime(judgement: Judgement) -> list[Score]:
    """One score a regime."""
    found = scored(judgement)
    return [
        score(
            regime,
            [each for each in found if each.case.regime == regime],
            sum(each.regime == regime for each in judgement.skipped),
        )
        for regime in REGIMES
    ]


def grouped(judgement: Judgement, key: Callable[[Judged], str]) -> list[Score]:
    """One score for each value of `key`."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in scored(judgement):
        groups[key(each)].append(each)
    return [score(name, groups[name], 0) for name in sorted(groups)]


def without_each_source(judgement: Judgement, regime: Regime) -> list[tuple[str, float | None]]:
    """The median |error| of a regime when a source is left out: what no source decides."""
    found = [each for each in scored(judgement) if each.case.regime == regime]
    sources = sorted({each.case.source for each in found})
    return [
        (source, _median([abs(e.error) for e in found if e.case.source != source]))
        for source in sources
    ]


def score(name: str, found: Sequence[Judged], skipped: int) -> Score:
    """The errors of these rows."""
    errors = [each.error for each in found]
    sizes = sorted(abs(error) for error in errors)
    worst = max(found, key=lambda each: abs(each.error), default=None)
    return Score(
        name=name,
        rows=len(found) + skipped,
        skipped=skipped,
        median_abs_error=_median(sizes),
        p90_abs_error=sizes[ceil(0.9 * len(sizes)) - 1] if sizes else None,
        bias=_median(errors),
        left=abs(sum(errors)) / sum(sizes) if sum(sizes) else None,
        covered=mean(each.covered for each in found) if found else None,
        worst=f"{worst.case.id} ({worst.error:+.0%})" if worst else "",
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def ranking(found: Iterable[Judged]) -> Ranking:
    """Pairs that differ by less than a thousandth are no pairs."""
    groups = [group for group in _groups(found) if len(group) > 1]
    pairs = right = 0
    regrets: list[float] = []
    for group in groups:
        measured = [each.case.work / each.case.measured_s for each in group]
        predicted = [each.case.work / each.prediction.time_s for each in group]
        for i, j in combinations(range(len(group)), 2):
            if abs(measured[i] / measured[j] - 1) > 1e-3:
                pairs += 1
                right += (measured[i] > measured[j]) == (predicted[i] > predicted[j])
        pick = max(range(len(group)), key=lambda at: predicted[at])
        regrets.append(1 - measured[pick] / max(measured))
    return Ranking(
        pairs=pairs,
        ordered=right / pairs if pairs else None,
        groups=len(groups),
        mean_regret=mean(regrets) if regrets else None,
    )


def _groups(found: Iterable[Judged]) -> list[list[Judged]]:
    groups: dict[tuple[str, ...], list[Judged]] = defaultdict(list)
    for each in found:
        if each.case.group:
            groups[each.case.group].append(each)
    return list(groups.values())


def changes(found: Iterable[Judged]) -> list[Change]:
    """For each knob, the pairs of a group that differ in it alone."""
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group in _groups(found):
        for a, b in combinations(group, 2):
            differing = [
                name
                for (name, one), (_, other) in zip(a.case.knobs, b.case.knobs, strict=True)
                if one != other
            ]
            measured = _per_work(a.case.measured_s, b.case.measured_s, a, b)
            if len(differing) == 1 and abs(measured) > 1e-3:
                predicted = _per_work(a.prediction.time_s, b.prediction.time_s, a, b)
                pairs[differing[0]].append((measured, predicted))
    return [
        Change(
            knob=knob,
            pairs=len(found),
            same_sign=mean(m * p > 0 for m, p in found),
            median_size_error=_median([abs(p / m - 1) for m, p in found]),
        )
        for knob, found in sorted(pairs.items())
    ]


def _per_work(a_s: float, b_s: float, a: Judged, b: Judged) -> float:
    """How much more time b takes than a for the same work."""
    return (b_s / b.case.work) / (a_s / a.case.work) - 1
