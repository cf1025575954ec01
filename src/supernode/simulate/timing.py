"""Timing: how long something takes on a machine, and on which kinds of numbers that rests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from supernode.machine import KINDS, Kind, Sourced


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """`time_s`, and the `bound_s` that no implementation can beat: peak rates, no latency.

    `by_kind` divides `time_s` by the weakest kind of number each part of it rests on.
    """

    time_s: float
    bound_s: float
    by_kind: Mapping[Kind, float] = field(hash=False)

    def longer(self, more_s: float, kind: Kind) -> "Timing":
        """`more_s` longer, which rests on numbers of `kind`; the bound stays."""
        if more_s <= 0:
            return self
        by_kind = {**self.by_kind, kind: self.by_kind.get(kind, 0.0) + more_s}
        return replace(self, time_s=self.time_s + more_s, by_kind=by_kind)

    def part(self, share: float) -> "Timing":
        """So much of it."""
        if share == 1:
            return self
        by_kind: dict[Kind, float] = {k: part_s * share for k, part_s in self.by_kind.items()}
        return Timing(time_s=self.time_s * share, bound_s=self.bound_s * share, by_kind=by_kind)


def weakest(numbers: Iterable[Sourced]) -> Kind:
    """The least certain kind among them."""
    return KINDS[max(KINDS.index(number.kind) for number in numbers)]


def timing(parts: Iterable[tuple[float, Kind]], bound_s: float) -> Timing:
    """The Timing of parts that come one after the other, each with its kind of number."""
    by_kind: dict[Kind, float] = {}
    for time_s, kind in parts:
        by_kind[kind] = by_kind.get(kind, 0.0) + time_s
    return Timing(time_s=sum(by_kind.values()), bound_s=bound_s, by_kind=by_kind)
