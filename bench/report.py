"""The report of a section, as markdown: host, versions, recipe, method, every row and round."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.host import Conditions, versions
from bench.result import Row, Section
from supernode.calibrate import Hardware, slugged

REPORTS = Path(__file__).with_name("reports")
HEADLINES, END_HEADLINES = "<!-- headlines -->", "<!-- /headlines -->"
_MARK = {True: "met", False: "**missed**", None: ""}


def write(section: Section, folder: Path, date: str, conditions: Conditions) -> Path:
    """Writes the report of `section`, taken on `date` (YYYY-MM-DD) on this host; gives its path."""
    hardware = Hardware.here()
    folder.mkdir(parents=True, exist_ok=True)
    slug = slugged(section.device) if section.device else hardware.slug
    path = folder / f"{section.theme}_{slug}_{date}.md"
    path.write_text(markdown(section, hardware, versions(), conditions, date), encoding="utf-8")
    return path


def markdown(
    section: Section,
    hardware: Hardware,
    software: Mapping[str, str],
    conditions: Conditions,
    date: str,
) -> str:
    """The report as text."""
    parts = [
        f"# {section.title}",
        "\n".join(
            [
                f"- date: {date}",
                f"- hardware: {f'{section.device}, on ' if section.device else ''}{hardware}",
                f"- versions: {', '.join(f'{name} {text}' for name, text in software.items())}",
                f"- conditions: {conditions}",
            ]
        ),
        f"## How\n\n{section.how}",
        "## Results\n\n" + table(("what", "result", "range", "wanted", ""), _results(section.rows)),
    ]
    headlines = [
        (row.headline, _headline(row), f"{section.device or hardware.name}, {date}: {row.what}")
        for row in section.rows
        if row.headline
    ]
    if headlines:
        text = table(("what", "result", "how"), headlines)
        parts.append(f"## Headlines\n\n{HEADLINES}\n{text}\n{END_HEADLINES}")
    if section.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in section.notes))
    parts.append(f"## Recipe\n\n```json\n{json.dumps(section.recipe, indent=2)}\n```")
    parts.append("## Rounds\n\n" + table(("what", "ours", "theirs"), _rounds(section.rows)))
    return "\n\n".join(parts) + "\n"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _results(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    return [(row.what, row.result, _range(row), row.wanted, _MARK[row.is_met]) for row in rows]


def _range(row: Row) -> str:
    if row.theirs:
        return f"{min(row.ratios):.2f} to {max(row.ratios):.2f}x"
    return f"{row.text(min(row.ours))} to {row.text(max(row.ours))}"


def _headline(row: Row) -> str:
    return row.result + (f"; wanted {row.wanted}" if row.is_met is False else "")


def _rounds(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    return [
        (row.what, ", ".join(map(row.text, row.ours)), ", ".join(map(row.text, row.theirs)))
        for row in rows
    ]
