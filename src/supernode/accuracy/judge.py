"""Every row predicted: over two processes, each row once for one state of the code."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

from supernode.accuracy.case import Case, NotExpressed, Step, steps_of
from supernode.accuracy.cases import Skipped, cases, repeats, skip
from supernode.accuracy.kept import Answer, Kept, Prediction
from supernode.accuracy.predict import Predictor, machine_for
from supernode.accuracy.shorter import shortened
from supernode.accuracy.truth import Row

PROCESSES = 2
"""Captures are pure Python, so a process each; more would ask too much of a small host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row with its prediction."""

    case: Case
    prediction: Prediction

    @property
    def error(self) -> float:
        """Predicted over measured time, minus 1: above 0 where the prediction is too slow."""
        return self.prediction.time_s / self.case.measured_s - 1

    @property
    def covered(self) -> bool:
        """Whether the measured time lies in the range that the prediction states."""
        return self.prediction.low_s <= self.case.measured_s <= self.prediction.high_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All rows: those predicted, those not, and those that a later row of their source repeats."""

    judged: tuple[Judged, ...]
    skipped: tuple[Skipped, ...]
    repeated: dict[str, str]


def judge(
    rows: Sequence[Row],
    *,
    processes: int = PROCESSES,
    cache: Path | None = None,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Judgement:
    """Predicts the rows; those that can't be asked for, and those no plan can have, are skipped.

    With a `cache` folder a row is predicted once for one state of the code, and a run that was cut
    off goes on. After so many `minutes` no more captures are begun, and rows that were not reached
    are skipped, of every source alike.
    `say` is told how far it is.
    """
    made, skipped = cases(rows)
    until_s = time.monotonic() + (math.inf if minutes is None else 60 * minutes)
    later = repeats(made, rows)
    kept = Kept(cache, machine_for)
    answers = {case.id: found for case in made if (found := kept.answer(case)) is not None}
    open_ = [case for case in made if case.id not in answers]
    progress = _Progress(len(made), open_, say)
    for results in _all_groups(open_, processes, cache, until_s):
        answers |= results
        progress.add(results)
    done: list[Judged] = []
    for case in made:
        answer = answers[case.id]
        if isinstance(answer, str):
            skipped.append(skip(case.id, case.source, case.machine, case.regime, answer))
        else:
            done.append(Judged(case=case, prediction=answer))
    order = {row.id: at for at, row in enumerate(rows)}
    skipped.sort(key=lambda each: order[each.id])
    return Judgement(judged=tuple(done), skipped=tuple(skipped), repeated=later)


class _Progress:
    """How far it is, and about how long the rest takes, by the layers of the rows that are left."""

    def __init__(self, total: int, open_: Sequence[Case], say: Callable[[str], None]) -> None:
        self._total, self._left, self._say = total, {c.id: _work(c) for c in open_}, say
        self._work, self._start_s = sum(self._left.values()), time.monotonic()
        say(f"{total - len(self._left)} of {total} rows predicted before")

    def add(self, results: Iterable[str]) -> None:
        """These rows are done."""
        for id_ in results:
            del self._left[id_]
        left = sum(self._left.values())
        past_s = time.monotonic() - self._start_s
        rest_s = past_s * left / (self._work - left)
        done = self._total - len(self._left)
        self._say(f"{done} of {self._total} rows predicted, about {rest_s / 60:.0f} min left")


def _work(case: Case) -> float:
    """About how long a row takes, in units of one layer captured, partitioned and simulated."""
    steps = _steps(case)
    return 1 + sum(less.shape.layers for step in steps for _, less in shortened(step))


def _all_groups(
    open_: Iterable[Case], processes: int, cache: Path | None, until_s: float
) -> Iterable[dict[str, Answer]]:
    """Cases that share a capture go together, so that it is made once."""
    groups: dict[object, list[Case]] = {}
    for case in open_:
        groups.setdefault(_shared(case), []).append(case)
    ordered = _in_turn(list(groups.values()))
    if processes == 1 or not ordered:
        for group in ordered:
            yield predict_group(group, cache, until_s)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool:
        jobs = [pool.submit(predict_group, group, cache, until_s) for group in ordered]
        for job in as_completed(jobs):
            yield job.result()


def _end_with_parent() -> None:
    """A killed parent can't tell its processes to end: they see that it is gone."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_turn(groups: list[list[Case]]) -> list[list[Case]]:
    """One group of each source after the other, so that none waits for all of another; first those
    that need no capture."""
    turn: dict[str, int] = {}
    order: list[tuple[bool, int, int]] = []
    for at, group in enumerate(groups):
        source = group[0].source
        turn[source] = turn.get(source, -1) + 1
        captures = bool(_steps(group[0]))
        order.append((captures, turn[source], at))
    return [groups[at] for _, _, at in sorted(order)]


def _shared(case: Case) -> object:
    steps = _steps(case)
    return shortened(steps[0])[0][1].capture_key if steps else case.machine


def _steps(case: Case) -> list[Step]:
    return [step for _, spec in case.parts for step in steps_of(spec)]


def predict_group(
    group: Sequence[Case], cache: Path | None, until_s: float = math.inf
) -> dict[str, Answer]:
    """The cases of one capture by id, predicted or with the reason why not."""
    predictor = Predictor(cache)
    return {case.id: _predicted(case, predictor, until_s) for case in sorted(group, key=_layout)}


def _layout(case: Case) -> str:
    steps = _steps(case)
    return steps[0].layout if steps else case.id


def _predicted(case: Case, predictor: Predictor, until_s: float) -> Answer:
    found = predictor.kept.answer(case)  # of a row that asks the same
    if found is not None:
        return found
    if time.monotonic() > until_s:
        return "not reached in the time given"
    try:
        found = predictor.predict(case)
    except NotExpressed as reason:
        found = str(reason)
    except Exception as error:  # one row that breaks the code must not lose the others
        print(f"{case.id}: {type(error).__name__}: {error}", file=sys.stderr)
        return f"our own error, {type(error).__name__}: {error}".splitlines()[0]
    predictor.kept.keep(case, found)
    return found
