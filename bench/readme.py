"""The table of measurements in the README, copied from the newest report of each theme."""

from collections.abc import Iterable
from pathlib import Path

from bench.report import END_HEADLINES, HEADLINES, table

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def newest(folder: Path, themes: Iterable[str]) -> list[Path]:
    """The report of the latest date for each theme that has one, in the order of `themes`."""
    found: list[Path] = []
    for theme in themes:
        # Named THEME_HARDWARE_DATE.md; of one date, the last by name.
        reports = sorted(folder.glob(f"{theme}_*_*.md"), key=lambda path: (_date(path), path.name))
        found += reports[-1:]
    return found


def headlines(reports: Iterable[Path]) -> list[list[str]]:
    """The rows of the reports' tables of headlines, as cells."""
    rows: list[list[str]] = []
    for path in reports:
        text = path.read_text(encoding="utf-8")
        if HEADLINES in text:
            # The first two lines are the names of the columns and the rule below them.
            lines = _between(text, HEADLINES, END_HEADLINES).strip().splitlines()[2:]
            rows += [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return rows


def updated(text: str, rows: Iterable[list[str]]) -> str:
    """The README's `text` with `rows` as its table of measurements."""
    old = _between(text, BEGIN, END)
    new = "\n" + table(("what", "result", "how"), rows) + "\n"
    return text.replace(BEGIN + old + END, BEGIN + new + END)


def _between(text: str, begin: str, end: str) -> str:
    assert text.count(begin) == text.count(end) == 1, f"expected one {begin} and one {end}"
    return text.partition(begin)[2].partition(end)[0]


def _date(path: Path) -> str:
    return path.stem.rpartition("_")[2]
