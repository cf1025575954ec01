"""What a measurement gives: rows of rounds, and the section of a report they make."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from supernode.units import format_bytes, format_seconds

Unit = Literal["s", "B"]
_FORMAT: dict[Unit, Callable[[float], str]] = {"s": format_seconds, "B": format_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison, or one number by itself, with the value of each round.

    `theirs` is empty for a number by itself. Round i of both sides ran one after the other, so a
    ratio is taken within a round: slow load falls on both. `at_least` is the wanted ratio and
    `at_most` the wanted largest number of ours. A row with a `headline` goes to the README.
    """

    what: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()
    unit: Unit = "s"
    at_least: float | None = None
    at_most: float | None = None
    headline: str = ""

    def __post_init__(self) -> None:
        assert self.ours, f"{self.what}: no rounds"
        assert not self.theirs or len(self.theirs) == len(self.ours), f"{self.what}: uneven rounds"

    @property
    def value(self) -> float:
        """The median of ours."""
        return statistics.median(self.ours)

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as long the other side took, round by round."""
        return tuple(them / us for us, them in zip(self.ours, self.theirs, strict=False))

    @property
    def ratio(self) -> float | None:
        """The median of `ratios`; None for a number by itself."""
        return statistics.median(self.ratios) if self.theirs else None

    @property
    def is_met(self) -> bool | None:
        """Whether the row is as wanted; None if nothing is asked of it."""
        if self.at_least is not None:
            assert self.ratio is not None, f"{self.what}: a wanted ratio, and nothing to compare"
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def wanted(self) -> str:
        """What is asked of the row, as text."""
        if self.at_least is not None:
            return f"≥ {self.at_least:.3g}x"
        return "" if self.at_most is None else f"≤ {self.text(self.at_most)}"

    def text(self, value: float) -> str:
        """`value` in the unit of this row."""
        return _FORMAT[self.unit](value)

    @property
    def result(self) -> str:
        """The outcome in a few words: a ratio with its two times, or a number."""
        if self.ratio is None:
            return self.text(self.value)
        theirs = self.text(statistics.median(self.theirs))
        return f"{self.ratio:.2f}x ({self.text(self.value)} against {theirs})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one theme measured: the rows, how they were taken, and everything that was chosen.

    `device` is what it ran on, if not on the processors of this host.
    """

    theme: str
    title: str
    how: str
    recipe: Mapping[str, object]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    device: str = ""
