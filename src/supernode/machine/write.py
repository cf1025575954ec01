"""Machine → the text of a machine file, which `parse_machine` reads back to an equal Machine."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from supernode.machine.fit import Fit
from supernode.machine.machine import Level, Machine
from supernode.machine.sourced import Alternative, Source, Sourced

_FITTED = ("rows", "median_error", "p90_error")


def to_toml(machine: Machine) -> str:
    """The machine file that says so; numbers carried over from other machines are written out."""
    return "".join(f"{line}\n" for line in _table("", machine)).lstrip("\n")


def _table(path: str, part: object) -> Iterator[str]:
    """The plain entries of a dataclass, then its tables, as TOML wants them ordered."""
    assert is_dataclass(part)
    entries = [(f.name, getattr(part, f.name)) for f in fields(part) if not _default(f, part)]
    yield from (f"{name} = {_value(entry)}" for name, entry in entries if _is_plain(entry))
    for name, entry in entries:
        if not _is_plain(entry):
            yield from _inner(f"{path}.{name}" if path else name, entry)


def _default(field: "Field[Any]", part: object) -> bool:
    """Whether a field holds what it holds where a file does not say."""
    entry = getattr(part, field.name)
    if field.default is not MISSING:
        return entry == field.default
    return field.default_factory is not MISSING and entry == field.default_factory()


def _is_plain(entry: object) -> bool:
    return isinstance(entry, str | int | float | Sourced)


def _inner(path: str, entry: object) -> Iterator[str]:
    if isinstance(entry, Fit):
        yield from (f"\n[{path}]", *_fit(entry))
    elif isinstance(entry, Mapping):
        plain = {name: inner for name, inner in entry.items() if _is_plain(inner)}
        if plain:
            yield f"\n[{path}]"
        yield from (f"{name} = {_value(inner)}" for name, inner in plain.items())
        for name, inner in entry.items():
            if name not in plain:
                yield from _inner(f"{path}.{name}", inner)
    elif isinstance(entry, tuple):
        for each in entry:
            yield from _item(path, each)
    else:
        yield from (f"\n[{path}]", *_table(path, entry))


def _item(path: str, item: object) -> Iterator[str]:
    if isinstance(item, Source):
        yield from (f"\n[{path}.{json.dumps(item.name)}]", f"title = {_value(item.title)}")
        if item.url:
            yield f"url = {_value(item.url)}"
    elif isinstance(item, Alternative):
        yield from (f"\n[[{path}]]", f"key = {_value(item.key)}")
        yield from (f"{name} = {_value(entry)}" for name, entry in _birth(item.number))
    else:
        assert isinstance(item, Level)
        yield from (f"\n[[{path}]]", *_table(path, item))


def _fit(fit: Fit) -> Iterator[str]:
    """Plain numbers that share one birth."""
    birth = (item for item in _birth(fit.any) if item[0] != "value")
    yield from (f"{name} = {_value(entry)}" for name, entry in birth)
    if fit.rows:
        yield from (f"{name} = {_value(getattr(fit, name))}" for name in _FITTED)
    yield from (f"{name} = {_value(number.value)}" for name, number in fit.values.items())


def _birth(number: Sourced) -> Iterator[tuple[str, str | float]]:
    for name in ("value", "source", "date", "kind", "note"):
        if getattr(number, name) != "":
            yield name, getattr(number, name)


def _value(entry: object) -> str:
    if isinstance(entry, Sourced):
        inner = ", ".join(f"{name} = {_value(each)}" for name, each in _birth(entry))
        return f"{{{inner}}}"
    # A basic string of TOML has the escapes of JSON, and DEL must be one.
    if isinstance(entry, str):
        return json.dumps(entry, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(entry).lower() if isinstance(entry, bool) else repr(entry)
