"""One machine in full: every number of its file with where it comes from."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from supernode.machine import Machine, Sourced


def sources_report(machine: Machine) -> RenderableType:
    """The machine's numbers in SI units, the values sources disagree on, and the sources."""
    numbers = _table("number")
    for key, number in machine.numbers():
        numbers.add_row(key, *_cells(number))
    parts: list[RenderableType] = [Text(f"{machine.title} ({machine.name})", style="bold"), numbers]
    if machine.alternatives:
        others = _table("other sources say")
        for other in machine.alternatives:
            others.add_row(other.key, *_cells(other.number))
        parts.append(others)
    for source in machine.sources:
        address = f", {source.url}" if source.url else ""
        parts.append(Text(f"{source.name}: {source.title}{address}", overflow="fold"))
    if machine.notes:
        parts.append(Text(" ".join(machine.notes.split())))
    return Group(*parts)


def _table(first: str) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column(first, overflow="fold")  # never cut: keys differ in their last letters
    table.add_column("value", justify="right", no_wrap=True)
    for name in ("kind", "source", "date"):
        table.add_column(name, no_wrap=True)
    table.add_column("note", overflow="fold")
    return table


def _cells(number: Sourced) -> tuple[str, str, str, str, str]:
    return (f"{number.value:.4g}", number.kind, number.source, number.date, number.note)
