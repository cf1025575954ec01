"""Table: one table of a machine file, read with checks that name the file and the key."""

import datetime
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from supernode.errors import MachineFileError, near_matches

_DATE = re.compile(r"\d{4}(-\d\d){0,2}")

Choice = TypeVar("Choice", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A TOML table, the file it stands in and its dotted key there (`""` at the top).

    Every method raises MachineFileError if an entry is missing, of another type or out of range.
    """

    file: str
    key: str
    entries: Mapping[str, object]

    def error(self, key: str, wrong: str, fix: str = "") -> MachineFileError:
        """The error to raise about entry `key` of this table."""
        return MachineFileError(wrong, where=f"{self.file}, key {self.path(key)}", fix=fix)

    def path(self, key: str) -> str:
        """The dotted key of entry `key` in the file."""
        return f"{self.key}.{key}" if self.key else key

    def allow(self, known: Iterable[str]) -> None:
        """Refuses entries other than the `known` ones."""
        known = tuple(known)
        for key in self.entries:
            if key not in known:
                raise self.error(key, "unknown key", near_matches(key, known))

    def text(self, key: str, default: str | None = None) -> str:
        """A string; optional if a default is given."""
        if default is not None and key not in self.entries:
            return default
        entry = self._entry(key)
        if not isinstance(entry, str):
            raise self.error(key, f"expected a string, got {_show(entry)}")
        return entry.strip()

    def date(self, key: str) -> str:
        """A date as a string: YYYY-MM-DD, YYYY-MM or YYYY."""
        text = self.text(key)
        wrong = f"expected a date as YYYY-MM-DD, YYYY-MM or YYYY, got {text!r}"
        if not _DATE.fullmatch(text):
            raise self.error(key, wrong)
        try:
            datetime.date.fromisoformat((text + "-01-01")[:10])
        except ValueError as error:
            raise self.error(key, wrong) from error
        return text

    def choice(self, key: str, known: Sequence[Choice]) -> Choice:
        """A string that is one of `known`."""
        text = self.text(key)
        for choice in known:
            if text == choice:
                return choice
        raise self.error(key, f"expected one of {', '.join(known)}, got {text!r}")

    def count(self, key: str) -> int:
        """A whole number of 1 or more."""
        entry = self._entry(key)
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < 1:
            raise self.error(key, f"expected a whole number of 1 or more, got {_show(entry)}")
        return entry

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false; `default` if it is not there."""
        entry = self.entries.get(key, default)
        if not isinstance(entry, bool):
            raise self.error(key, f"expected true or false, got {_show(entry)}")
        return entry

    def number(self, key: str, *, zero: bool = False, most: float = math.inf) -> float:
        """A finite number above 0 (or 0, if `zero`) and not above `most`."""
        entry = self._entry(key)
        bound = "of 0 or more" if zero else "above 0"
        expected = f"a number {bound}" + ("" if math.isinf(most) else f" and at most {most:g}")
        if not isinstance(entry, int | float) or isinstance(entry, bool):
            raise self.error(key, f"expected {expected}, got {_show(entry)}")
        high_enough = entry >= 0 if zero else entry > 0
        # Not `isfinite`: TOML knows nan and inf, and integers that no float can hold.
        if not (high_enough and entry <= min(most, sys.float_info.max)):
            raise self.error(key, f"expected {expected}, got {entry}")
        return float(entry)

    def table(self, key: str) -> "Table":
        """The table that entry `key` holds."""
        return self._inner(key, self._entry(key), key)

    def tables(self, key: str, *, optional: bool = False) -> tuple["Table", ...]:
        """The tables of an array of tables; their keys end in their position, from 0."""
        if optional and key not in self.entries:
            return ()
        entry = self._entry(key)
        if not isinstance(entry, list) or not entry:
            raise self.error(key, f"expected [[{self.path(key)}]] tables, got {_show(entry)}")
        items = cast("list[object]", entry)
        return tuple(self._inner(key, item, f"{key}[{i}]") for i, item in enumerate(items))

    def _entry(self, key: str) -> object:
        if key not in self.entries:
            raise self.error(key, "missing key")
        return self.entries[key]

    def _inner(self, key: str, entry: object, name: str) -> "Table":
        if not isinstance(entry, dict):
            raise self.error(name, f"expected a table, got {_show(entry)}")
        entries = cast("dict[str, object]", entry)
        return Table(file=self.file, key=self.path(name), entries=entries)


def _show(entry: object) -> str:
    if isinstance(entry, dict | list):
        return "a table" if isinstance(entry, dict) else "an array"
    return f"the string {entry!r}" if isinstance(entry, str) else str(entry)
