"""What was measured of kernels and links, in a machine file: tables of numbers of one birth."""

from collections.abc import Callable, Iterator, Sequence

from supernode.errors import UnknownName
from supernode.machine.fit import (
    ACCESS,
    EXPERTS,
    KERNELS,
    MAY_HAVE,
    ONE_SHOT,
    TRANSPORT,
    WAYS,
    Fit,
)
from supernode.machine.machine import Machine
from supernode.machine.parse_number import Sources, number_of
from supernode.machine.sourced import Sourced
from supernode.machine.table import Table

Like = Callable[[str], Machine]
"""Finds the machine that a file carries measurements over from."""

_BIRTH = ("source", "date", "kind", "note")
_ERRORS = ("median_error", "p90_error")
_SHARES = ("memory", "sustained", "steady")


def no_other(name: str) -> Machine:
    """The Like of a file that stands alone."""
    raise UnknownName(f"no machine {name!r} to carry numbers over from")


def kernels(table: Table, sources: Sources, like: Like) -> Iterator[tuple[str, Fit]]:
    """The fits of the chip's kernels; `like` names the machine whose kernels fill the rest."""
    if "kernels" not in table.entries:
        return
    inner = table.table("kernels")
    inner.allow(("like", *KERNELS))
    own = {
        f"{family}.{dtype}": _fit(
            inner.table(family).table(dtype),
            sources,
            KERNELS[family],
            MAY_HAVE.get(family, ()),
        )
        for family in inner.entries
        if family != "like"
        for dtype in inner.table(family).entries
    }
    yield from own.items()
    if "like" in inner.entries:
        other = _other(inner, like)
        for name, fit in other.chip.kernels.items():
            if name not in own:
                yield name, _carried(inner, fit, other, sources)


def _other(table: Table, like: Like) -> Machine:
    try:
        return like(table.text("like"))
    except UnknownName as error:
        raise table.error("like", str(error)) from error


def _carried(table: Table, fit: Fit, other: Machine, sources: Sources) -> Fit:
    if fit.any.source not in sources:
        raise table.error("like", f"{fit.any.source!r}, its source, is not in [sources]")
    return fit.carried(other.name)


def _fit(table: Table, sources: Sources, names: Sequence[str], optional: Sequence[str] = ()) -> Fit:
    """A table of plain numbers that share one birth."""
    table.allow((*_BIRTH, "rows", *_ERRORS, *names, *optional))
    found = [*names, *(name for name in optional if name in table.entries)]
    birth = {key: table.entries[key] for key in _BIRTH if key in table.entries}

    def number(name: str) -> Sourced:
        most = 1 if name.endswith("share") or name in _SHARES else float("inf")
        value = table.number(name, zero=name.endswith("_s"), most=most)
        inner = Table(file=table.file, key=table.key, entries={**birth, "value": value})
        return number_of(inner, sources, zero=True)

    values = {name: number(name) for name in found}
    if "rows" not in table.entries:
        return Fit(values=values)
    errors = {name: table.number(name, zero=True) for name in _ERRORS}
    return Fit(values=values, rows=table.count("rows"), **errors)


def link_fit(table: Table, key: str, sources: Sources, like: Like) -> Fit | None:
    """What was measured of links, if the table has it: `transport`, `experts`, …."""
    if key not in table.entries:
        return None
    inner, field = table.table(key), key.removeprefix("scale_out_")
    if "like" not in inner.entries:
        return _fit(inner, sources, _LINKS[field], WAYS if field == "transport" else ())
    inner.allow(("like",))
    other = _other(inner, like)
    of = other.scale_out_transport if key != field else getattr(other.levels[0], field)
    if of is None:
        raise inner.error("like", f"nothing was measured of that on {other.name}")
    return _carried(inner, of, other, sources)


_LINKS = {"transport": TRANSPORT, "experts": EXPERTS, "one_shot": ONE_SHOT, "access": ACCESS}
