"""Every row predicted: over two processes, each row once for one state of the code."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from supernode.accuracy.case import Case, NotExpressed, Operator, Step
from supernode.accuracy.cases import Skipped, cases, repeats, skip
from supernode.accuracy.predict import Prediction, Predictor, code_version
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


def cache_folder() -> Path:
    """Where captures and predictions are kept: in `$XDG_CACHE_HOME/supernode/`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "supernode" / "accuracy"


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
    by_id = {case.id: case for case in made}
    done: list[Judged] = []
    total, finished = len(made), 0
    for results in _all_groups(made, processes, cache, until_s):
        for id_, result in results:
            case = by_id[id_]
            if isinstance(result, str):
                skipped.append(skip(id_, case.source, case.machine, case.regime, result))
            else:
                done.append(Judged(case=case, prediction=result))
        finished += len(results)
        say(f"{finished} of {total} rows predicted")
    order = {row.id: at for at, row in enumerate(rows)}
    done.sort(key=lambda each: order[each.case.id])
    skipped.sort(key=lambda each: order[each.id])
    return Judgement(judged=tuple(done), skipped=tuple(skipped), repeated=later)


Result = tuple[str, Prediction | str]


def _all_groups(
    made: Iterable[Case], processes: int, cache: Path | None, until_s: float
) -> Iterable[list[Result]]:
    """Cases that share a capture go together, so that it is made once."""
    groups: dict[object, list[Case]] = {}
    for case in made:
        groups.setdefault(_shared(case), []).append(case)
    ordered = _in_turn(list(groups.values()))
    if processes == 1:
        for group in ordered:
            yield predict_group(group, cache, until_s)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(predict_group, group, cache, until_s) for group in ordered]
        for job in as_completed(jobs):
            yield job.result()


def _in_turn(groups: list[list[Case]]) -> list[list[Case]]:
    """One group of each source after the other, so that none waits for all of another; first those
    that need no capture."""
    turn: dict[str, int] = {}
    order: list[tuple[bool, int, int]] = []
    for at, group in enumerate(groups):
        source = group[0].source
        turn[source] = turn.get(source, -1) + 1
        captures = any(isinstance(spec, Step) for _, spec in group[0].parts)
        order.append((captures, turn[source], at))
    return [groups[at] for _, _, at in sorted(order)]


def _shared(case: Case) -> object:
    steps = [spec for _, spec in case.parts]
    first = steps[0]
    if isinstance(first, Step):
        return shortened(first)[0][1].capture_key
    return first.step.capture_key if isinstance(first, Operator) and first.step else case.machine


def predict_group(
    group: Sequence[Case], cache: Path | None, until_s: float = math.inf
) -> list[Result]:
    """The cases of one capture, predicted or with the reason why not."""
    predictor = Predictor(None if cache is None else cache / "programs")
    return [
        (case.id, _predicted(case, predictor, cache, until_s))
        for case in sorted(group, key=_layout)
    ]


def _layout(case: Case) -> str:
    spec = case.parts[0][1]
    return spec.layout if isinstance(spec, Step) else case.id


def _predicted(
    case: Case, predictor: Predictor, cache: Path | None, until_s: float
) -> Prediction | str:
    path = None if cache is None else cache / "rows" / f"{_key(case)}.json"
    if path is not None and path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept if isinstance(kept, str) else Prediction(**kept)
    if time.monotonic() > until_s:
        return "not reached in the time given"
    try:
        found: Prediction | str = predictor.predict(case)
    except NotExpressed as reason:
        found = str(reason)
    except Exception as error:  # one row that breaks the code must not lose the others
        print(f"{case.id}: {type(error).__name__}: {error}", file=sys.stderr)
        found = f"our own error, {type(error).__name__}: {error}".splitlines()[0]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(found if isinstance(found, str) else asdict(found)))
        part.replace(path)
    return found


def _key(case: Case) -> str:
    """Of what is asked and of the code that answers: rows that repeat another share its answer."""
    asked = (case.parts, case.machine, case.network_bytes_per_s)
    return hashlib.sha256(f"{asked}{code_version()}".encode()).hexdigest()[:24]
