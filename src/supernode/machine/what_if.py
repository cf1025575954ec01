"""What if: a machine with some of its numbers changed."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from supernode.errors import InputError, UnknownName, near_matches
from supernode.machine.fit import Fit
from supernode.machine.machine import Level, Machine
from supernode.machine.sourced import Sourced

_FACTOR = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?)x")
Part = TypeVar("Part")


def what_if(machine: Machine, change: str) -> Machine:
    """`machine` with one number changed: `chip.memory.bandwidth=2x`, or `=4e12` in SI units.

    The key is one of `machine.numbers()`, or the part of it before the unit.

    Raises:
        InputError: the change is no `key=value`, or its value no number above 0.
        UnknownName: the machine has no such number.
    """
    key, sep, text = change.partition("=")
    if not sep:
        raise InputError(f"expected KEY=VALUE, got {change!r}", fix="chip.memory.bandwidth=2x")
    numbers = dict(machine.numbers())
    found = key if key in numbers else _in_full(key, numbers)
    factor = _factor(text, numbers[found].value)
    changed = numbers[found].scaled(factor, f"what if {text}")
    return _replaced(machine, found.split("."), changed)


def _in_full(key: str, numbers: Mapping[str, Sourced]) -> str:
    found = [name for name in numbers if name.startswith(f"{key}_")]
    if len(found) != 1:
        raise UnknownName(f"the machine has no number {key!r}", fix=near_matches(key, numbers))
    return found[0]


def _factor(text: str, value: float) -> float:
    times = _FACTOR.fullmatch(text)
    try:
        factor = float(times.group(1)) if times else float(text) / value
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise InputError(f"expected a factor such as 2x, or a number above 0, got {text!r}")
    return factor


def _replaced(part: Part, path: list[str], number: Sourced) -> Part:
    """The same part of a machine, with `number` at the end of the path."""
    if isinstance(part, Sourced):
        return number  # type: ignore[return-value]
    if isinstance(part, Fit):
        name = ".".join(path)
        return replace(part, values={**part.values, name: number})
    if isinstance(part, Mapping):
        at = next(n for n in range(1, len(path) + 1) if ".".join(path[:n]) in part)
        name = ".".join(path[:at])
        return {**part, name: _replaced(part[name], path[at:], number)}  # type: ignore[return-value]
    if isinstance(part, tuple):
        levels = (_level(level, path, number) for level in part)
        return tuple(levels)  # type: ignore[return-value]
    assert is_dataclass(part)
    assert path[0] in {field.name for field in fields(part)}
    inner = _replaced(getattr(part, path[0]), path[1:], number)
    return replace(part, **{path[0]: inner})  # type: ignore[return-value]


def _level(level: Level, path: list[str], number: Sourced) -> Level:
    return _replaced(level, path[1:], number) if level.name == path[0] else level
