"""Finds the parameters that predict measurements best, without a library for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, log, sqrt
from statistics import median, quantiles

Values = Mapping[str, float]
Predict = Callable[[Values, Sequence[int]], Sequence[float]]
"""The seconds of the samples of these numbers, by some parameters."""

FOLD = 4
"""One sample in so many is held out."""
SWEEPS, FIRST_STEP, LAST_STEP = 80, 0.7, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Parameters, and how far off they are on the `rows` samples that they were not fitted to."""

    values: Values
    rows: int
    median_error: float
    p90_error: float


def fitted(
    predict: Predict, seconds: Sequence[float], start: Values, most: Mapping[str, float]
) -> Found:
    """The parameters that predict three of four samples best, with their errors on the others."""
    known = [i for i in range(len(seconds)) if i % FOLD != FOLD - 1]
    unseen = [i for i in range(len(seconds)) if i % FOLD == FOLD - 1]

    def loss(values: Values) -> float:
        pairs = zip(predict(values, known), known, strict=True)
        errors = [log(max(found, 1e-12) / seconds[i]) for found, i in pairs]
        typical = fsum(sqrt(error**2 + 1e-4) for error in errors) / len(errors)
        return typical + 0.3 * sqrt(fsum(error**2 for error in errors) / len(errors))

    values = descend(loss, start, most)
    pairs = zip(predict(values, unseen), unseen, strict=True)
    errors = [abs(found / seconds[i] - 1) for found, i in pairs]
    return Found(
        values=values,
        rows=len(errors),
        median_error=median(errors),
        p90_error=quantiles(errors, n=10, method="inclusive")[-1],
    )


def descend(
    loss: Callable[[Values], float], start: Values, most: Mapping[str, float]
) -> dict[str, float]:
    """Positive parameters with a small loss: one after the other is made larger or smaller.

    A step that helps is tried longer next time, one that does not half as long. `most` bounds some.

    **Source:** compass search: Kolda, Lewis and Torczon, SIAM Review 45(3), 2003.
    """
    values, best = dict(start), loss(start)
    steps = dict.fromkeys(start, FIRST_STEP)
    for _ in range(SWEEPS):
        if max(steps.values()) < LAST_STEP:
            break
        for name in values:
            for sign in (1, -1):
                changed = values[name] * exp(sign * steps[name])
                tried = {**values, name: min(changed, most.get(name, changed))}
                found = loss(tried)
                if found < best - 1e-9:
                    values, best = tried, found
                    steps[name] *= 1.5
                    break
            else:
                steps[name] /= 2
    return values
