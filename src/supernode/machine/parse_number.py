"""A number of a machine file with its birth."""

from collections.abc import Mapping
from dataclasses import fields

from supernode.errors import near_matches
from supernode.machine.sourced import KINDS, Source, Sourced
from supernode.machine.table import Table

Sources = Mapping[str, Source]

SOURCED = tuple(field.name for field in fields(Sourced))


def sourced(
    table: Table, key: str, sources: Sources, *, zero: bool = False, most: float = float("inf")
) -> Sourced:
    """The number that entry `key` of a table holds."""
    inner = table.table(key)
    inner.allow(SOURCED)
    return number_of(inner, sources, zero=zero, most=most)


def number_of(
    table: Table, sources: Sources, *, zero: bool = False, most: float = float("inf")
) -> Sourced:
    """The number that a table is."""
    source = table.text("source")
    if source not in sources:
        raise table.error(
            "source", f"{source!r} is not in [sources]", near_matches(source, sources)
        )
    return Sourced(
        value=table.number("value", zero=zero, most=most),
        source=source,
        date=table.date("date"),
        kind=table.choice("kind", KINDS),
        note=table.text("note", ""),
    )


def optional(
    table: Table, key: str, sources: Sources, *, most: float = float("inf")
) -> Sourced | None:
    """The number that entry `key` of a table holds, or None if there is no such entry."""
    return sourced(table, key, sources, most=most) if key in table.entries else None
