"""Rows: many records that differ in a few fields, what they have in common stored once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row")
Column = NDArray[Any]


class Rows(Sequence[Row]):
    """A sequence of records of one dataclass, each made when it is asked for.

    Row `i` is `kinds[which[i]]` with the value of each of the `columns` at `i` in the field of that
    name; in `kinds` those fields are empty. A million rows of three columns take 32 MB.
    """

    def __init__(
        self,
        kinds: Sequence[Row],
        which: NDArray[np.integer[Any]],
        columns: Mapping[str, Column],
    ) -> None:
        self.kinds, self.which, self.columns = kinds, which, columns

    @staticmethod
    def of(blank: Mapping[str, Any], rows: Iterable[Row]) -> "Rows[Row]":
        """The same records as `rows`, with columns for the fields of `blank`, here empty."""
        kinds: dict[Row, int] = {}
        which: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in blank}
        for row in rows:
            kind: Row = replace(row, **blank)  # type: ignore[type-var]
            which.append(kinds.setdefault(kind, len(kinds)))
            for name, column in values.items():
                column.append(getattr(row, name))
        columns = {name: column_of(values[name], empty) for name, empty in blank.items()}
        return Rows(tuple(kinds), np.array(which, dtype=np.int64), columns)

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> "Rows[Row]": ...
    def __getitem__(self, at: int | slice) -> "Row | Rows[Row]":
        if isinstance(at, int):
            place = range(len(self))[at]
            return next(iter(self[place : place + 1]))
        columns = {name: column[at] for name, column in self.columns.items()}
        return Rows(self.kinds, self.which[at], columns)

    def __iter__(self) -> Iterator[Row]:
        names = tuple(self.columns)
        values = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        for which, row in zip(self.which.tolist(), values, strict=True):
            kind: Any = self.kinds[which]
            yield replace(kind, **dict(zip(names, row, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and list(self) == list[object](other)

    def __repr__(self) -> str:
        return f"Rows({list(self)!r})"


def column_of(values: Sequence[Any], empty: Any) -> Column:
    """Values of the type of `empty` as a column: numbers packed, all else by reference."""
    return np.array(values, dtype=np.float64 if isinstance(empty, float) else object)
