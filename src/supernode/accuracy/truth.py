"""Published measurements: the rows of four files, with every column, as they were printed.

The files are those of `data/`, or of any folder with files of the same columns: `training.csv`,
`serving.csv`, `comm.csv`, `ops.csv`. An empty cell is what the source does not say, never zero.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from supernode.errors import InputError

DATA = Path(str(files("supernode.accuracy") / "data"))
"""The folder of the rows that come with supernode."""

TABLES = ("training", "serving", "comm", "ops")
_NEEDED = {
    "training": ("chips", "model", "seq", "precision", "measured_step_s"),
    "serving": ("chips", "model", "phase", "tok_s_chip", "tpot_ms"),
    "comm": ("chips", "op", "bytes", "latency_us"),
    "ops": ("op", "shape", "utilisation"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published result: `columns` holds every cell as text, empty where not stated."""

    table: str
    columns: Mapping[str, str] = field(hash=False)

    @property
    def id(self) -> str:
        return self.columns["id"]

    @property
    def source(self) -> str:
        return self.columns["source"]

    @property
    def machine(self) -> str:
        return self.columns["machine"]

    def text(self, column: str) -> str:
        """The cell, empty where the source does not say or the file has no such column."""
        return self.columns.get(column, "").strip()

    def number(self, column: str) -> float | None:
        """The cell as a number; None where it is empty."""
        cell = self.text(column)
        try:
            return float(cell) if cell else None
        except ValueError as error:
            wrong = f"expected a number, got {cell!r}"
            raise InputError(wrong, where=f"{self.table}.csv, {self.id}, {column}") from error

    def count(self, column: str, default: int) -> int:
        """The cell as a whole number, `default` where it is empty."""
        found = self.number(column)
        return default if found is None else int(found)

    def noted(self, key: str) -> str:
        """The value of `key=value` in the note, empty if there is none."""
        found = re.search(rf"(?:^|[;\s]){re.escape(key)}=([^;]*)", self.text("note"))
        return found[1].strip() if found else ""

    def noted_number(self, key: str) -> float | None:
        """The number that `key=value` in the note starts with."""
        found = re.match(r"[0-9.]+", self.noted(key))
        return float(found[0]) if found else None


def load_truth(folder: Path = DATA) -> tuple[Row, ...]:
    """The rows of all files of a folder, in order.

    Raises:
        InputError: the folder has none of the files, one lacks a column, or two rows one id.
    """
    found = [name for name in TABLES if (folder / f"{name}.csv").is_file()]
    if not found:
        raise InputError(
            f"there are no rows in {folder}",
            fix="name a folder with " + ", ".join(f"{name}.csv" for name in TABLES),
        )
    rows = [row for name in found for row in _rows(folder / f"{name}.csv", name)]
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(f"two rows are called {row.id}", where=str(folder))
        seen.add(row.id)
    return tuple(rows)


def _rows(path: Path, table: str) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        for name in ("id", "source", "machine", *_NEEDED[table]):
            if name not in names:
                raise InputError(f"there is no column {name!r}", where=str(path))
        for cells in reader:
            yield Row(table=table, columns={k: v or "" for k, v in cells.items() if k})
