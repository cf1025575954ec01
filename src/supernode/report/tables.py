"""What the tables for a terminal share."""

import io

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from supernode.units import format_bytes

NONE = "–"


def as_text(report: RenderableType, width: int = 100) -> str:
    """What a terminal of `width` columns without colours shows."""
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, legacy_windows=False).print(report)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def new_table(first: str, *columns: str) -> Table:
    """A table whose columns but the first are numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def spaced(*parts: RenderableType) -> Group:
    """The parts with an empty line between them."""
    shown: list[RenderableType] = []
    for part in parts:
        shown += ["", part] if shown else [part]
    return Group(*shown)


def sized(size_bytes: float) -> str:
    """A size, or a dash for none."""
    return format_bytes(size_bytes) if size_bytes else NONE


def counted(number: int, noun: str) -> str:
    """`2 chips`, `1 chip`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
