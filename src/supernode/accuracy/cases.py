"""Every row as a case, or with the reason why it is none; repeats of a row scored once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from supernode.accuracy.case import Case, NotExpressed, Regime
from supernode.accuracy.links import collective_case, operator_case
from supernode.accuracy.serving import serving_case
from supernode.accuracy.training import training_case
from supernode.accuracy.truth import Row

_MAKE: Mapping[str, Callable[[Row], Case]] = {
    "training": training_case,
    "serving": serving_case,
    "comm": collective_case,
    "ops": operator_case,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that is not predicted, and why."""

    id: str
    source: str
    machine: str
    regime: Regime
    reason: str


def cases(rows: Iterable[Row]) -> tuple[list[Case], list[Skipped]]:
    """The rows that can be asked for, and those that can't."""
    made: list[Case] = []
    skipped: list[Skipped] = []
    for row in rows:
        try:
            made.append(_MAKE[row.table](row))
        except NotExpressed as reason:
            skipped.append(skip(row.id, row.source, row.machine, regime_of(row), str(reason)))
    return made, skipped


def skip(id_: str, source: str, machine: str, regime: Regime, reason: str) -> Skipped:
    """A row with the reason why it is not predicted."""
    return Skipped(id=id_, source=source, machine=machine, regime=regime, reason=reason)


def regime_of(row: Row) -> Regime:
    """What kind of prediction a row asks for; a system that does both is judged by decoding."""
    if row.table == "training":
        mixed = row.number("experts") or row.text("ep") not in ("", "1")
        return "training-moe" if mixed or _mixture(row) else "training-dense"
    if row.table == "serving":
        return "prefill" if row.text("phase") == "prefill" else "decode"
    return "collectives" if row.table == "comm" else "operators"


def _mixture(row: Row) -> bool:
    return row.text("model").startswith(("gpt-oss", "DeepSeek", "Nemotron-3", "Mixtral"))


def repeats(made: Iterable[Case], rows: Iterable[Row]) -> dict[str, str]:
    """Rows that repeat a configuration of a later release of their source: id -> the later id.

    Such a group is scored once, by its latest row, or it would dominate an average.
    """
    release = {row.id: row.noted("release") for row in rows}
    alike: dict[object, list[Case]] = defaultdict(list)
    for case in made:
        if release.get(case.id):
            group = tuple(part for part in case.group if part != release[case.id])
            alike[(group, case.knobs, case.machine)].append(case)
    later: dict[str, str] = {}
    for group in alike.values():
        group.sort(key=lambda case: (release[case.id], case.id))
        later |= {case.id: group[-1].id for case in group[:-1]}
    return later
