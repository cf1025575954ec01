"""Tandem repeats in a sequence: where the same tokens come again right after themselves."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_PERIOD = 4
MIN_SAVED = 8
MAX_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Run:
    """`count` repetitions of `period` tokens, the first at `start`."""

    start: int
    period: int
    count: int

    @property
    def saved(self) -> int:
        """How many tokens are stored once instead of `count` times."""
        return (self.count - 1) * self.period


def find_run(tokens: Sequence[Hashable], refused: set[tuple[int, int]] | None = None) -> Run | None:
    """The run that saves most tokens; among equals the shortest period, then the first.

    Runs whose `(start, period)` is in `refused` are passed over.

    >>> find_run("xx" + "abcdefgh" * 3 + "y")
    Run(start=2, period=8, count=3)
    """
    ids: dict[Hashable, int] = {}
    numbers = np.array([ids.setdefault(token, len(ids)) for token in tokens], dtype=np.int64)
    best: Run | None = None
    for period in _candidates(numbers):
        for run in _runs(numbers, period):
            if refused and (run.start, run.period) in refused:
                continue
            if best is None or (run.saved, -run.period) > (best.saved, -best.period):
                best = run
    return best


def _candidates(numbers: np.ndarray) -> list[int]:
    """Distances between equal tokens, the frequent ones: a run's period is among them."""
    last: dict[int, int] = {}
    gaps: Counter[int] = Counter()
    for i, number in enumerate(numbers.tolist()):
        if number in last:
            gaps[i - last[number]] += 1
        last[number] = i
    common = gaps.most_common(MAX_CANDIDATES)
    return sorted(gap for gap, _ in common if gap >= MIN_PERIOD)


def _runs(numbers: np.ndarray, period: int) -> list[Run]:
    equal = np.concatenate(([0], (numbers[:-period] == numbers[period:]).astype(np.int8), [0]))
    edges = np.diff(equal)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    runs: list[Run] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        run = Run(start, period, (end - start) // period + 1)
        if run.saved >= max(MIN_SAVED, period):
            runs.append(run)
    return runs
