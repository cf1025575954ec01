"""Numbers that know where they come from."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Kind = Literal["datasheet", "measured", "inferred", "guessed"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""How a number was found: printed by the maker, measured, computed from other numbers or by a
third party's analysis, or recalled and estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where numbers were published: a short name to refer to it, its title and its address."""

    name: str
    title: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A number in its SI unit, with its birth.

    `source` is the short name of one of the machine's sources; `date` is the day (YYYY-MM-DD),
    month or year of that source, or of its reading if it bears none.
    """

    value: float
    source: str
    date: str
    kind: Kind
    note: str = ""

    def scaled(self, factor: float, why: str) -> "Sourced":
        """This number times `factor`: inferred, or still guessed if it was a guess."""
        kind: Kind = "guessed" if self.kind == "guessed" else "inferred"
        note = f"{self.note}; {why}" if self.note else why
        return replace(self, value=self.value * factor, kind=kind, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """What another source says about one of the machine's numbers, which `key` names."""

    key: str
    number: Sourced
