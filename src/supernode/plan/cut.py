"""Cut: how one mesh axis divides a dim, and which part of it each chip gets.

A cut is a word. `dp` cuts a dim in equal parts. `cp:8` cuts each of 8 equal groups of it: of a dim
`(b s)` of 8 sequences every chip has some tokens of each. `tp/6` cuts it in 6 equal units, of
which the first chips may get one more than the others; `cp:8/9` does so in each group.
`tp:4+1+1` cuts each of three stretches that are to each other as 4 to 1 to 1, and a chip has its
pieces of them one behind another: of a projection to q, k and v, some heads of each.

Several cuts of a dim apply one after another, outermost first; those of larger groups are inside.
Cuts of stretches are all of the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supernode.plan.mesh import Mesh

Cuts = tuple[str, ...]
Within = int | tuple[int, ...]
"""What a cut cuts one by one: so many equal groups of a dim, or stretches of these relative sizes.

Stretches of one size are groups.
"""


def cut(axis: str, within: Within = 1, units: int = 0) -> str:
    """The word for a cut by `axis` of each group or stretch; `units` 0 stands for equal parts.

    >>> cut("dp"), cut("cp", 8), cut("tp", units=6), cut("cp", 8, 9), cut("tp", (64, 16, 16))
    ('dp', 'cp:8', 'tp/6', 'cp:8/9', 'tp:4+1+1')
    """
    if not isinstance(within, int):
        unit = math.gcd(*within)
        within = len(within) if {*within} == {unit} else tuple(size // unit for size in within)
    if isinstance(within, int):
        inside = f":{within}" if within > 1 else ""
    else:
        inside = ":" + "+".join(map(str, within))
    return axis + inside + (f"/{units}" if units else "")


def beside(cuts: Cuts, axis: str, size: int = 0) -> str:
    """A cut by `axis` inside of others, of the same groups or stretches; in the smallest units that
    a dim of `size` gives, if that is not 0.

    >>> beside(("tp:2+1",), "dp"), beside(("tp:2+1",), "dp", 12), beside((), "dp", 12)
    ('dp:2+1', 'dp:2+1/4', 'dp/12')
    """
    within = cut_within(cuts[0]) if cuts else 1
    ends = bounds(cuts[0], size) if cuts else (0, size)
    return cut(axis, within, math.gcd(*(b - a for a, b in pairwise(ends))))


def by_expert(each: str) -> str:
    """The same cut of sorted rows, but by where their experts are (`ep~`), not their tokens (`ep`).

    How many rows a chip has is then known only when the step runs; types of local values give the
    number for balanced routing.
    """
    name = cut_name(each)
    return each if name.endswith("~") else cut(f"{name}~", cut_within(each), cut_units(each))


def by_token(each: str) -> str:
    """The same cut by where tokens are."""
    return cut(cut_axis(each), cut_within(each), cut_units(each))


def cut_name(each: str) -> str:
    """A cut without its groups and units."""
    return _parsed(each)[0]


def cut_axis(each: str) -> str:
    """The mesh axis of a cut."""
    return cut_name(each).removesuffix("~")


def time_axis(parts: int) -> str:
    """The axis of a cut in parts that run one after another; a draw says which it is for.

    >>> cut(time_axis(4), 8)
    '*4:8'
    """
    return f"*{parts}"


def cut_within(each: str) -> Within:
    """What a cut cuts one by one; 1 where it cuts the dim as a whole."""
    return _parsed(each)[1]


def is_contiguous(each: str) -> bool:
    """Whether it gives a chip one range of the dim."""
    return cut_within(each) == 1


def cut_groups(each: str) -> int:
    """How many equal groups a cut cuts one by one; 1 where it cuts the dim as a whole."""
    within = cut_within(each)
    assert isinstance(within, int), f"{each} cuts stretches"
    return within


def has_stretches(cuts: Cuts) -> bool:
    """Whether what is cut is stretches of unequal sizes."""
    return any(not isinstance(cut_within(each), int) for each in cuts)


def cut_units(each: str) -> int:
    """In how many units a cut counts each group; 0 where all chips get equal parts."""
    return _parsed(each)[2]


@cache
def _parsed(each: str) -> tuple[str, Within, int]:
    head, _, units = each.partition("/")
    axis, _, inside = head.partition(":")
    first, *others = map(int, (inside or "1").split("+"))
    return axis, (first, *others) if others else first, int(units or 0)


def bounds(each: str, size: int) -> tuple[int, ...]:
    """Where in a dim of `size` what a cut cuts one by one ends, and 0 before.

    Raises:
        AssertionError: it does not come out.

    >>> bounds("tp:4+1+1", 12), bounds("cp:4", 8)
    ((0, 8, 10, 12), (0, 2, 4, 6, 8))
    """
    within = cut_within(each)
    sizes = (1,) * within if isinstance(within, int) else within
    assert size % sum(sizes) == 0, f"{size} is not made of {within}"
    return tuple(accumulate((size // sum(sizes) * one for one in sizes), initial=0))


def stretches(cuts: Cuts, size: int) -> Iterator[tuple[int, int, Cuts]]:
    """Where each stretch that the cuts name starts, how long it is, and how it is cut."""
    if not has_stretches(cuts):
        yield 0, size, cuts
        return
    assert len({cut_within(each) for each in cuts}) == 1, f"{cuts} cut different stretches"
    inside = tuple(cut(cut_name(each), units=cut_units(each)) for each in cuts)
    for start, stop in pairwise(bounds(cuts[0], size)):
        yield start, stop - start, inside


def share(units: int, parts: int, index: int) -> tuple[int, int]:
    """Which of `units` part `index` has: the first of them, and how many.

    >>> [share(7, 3, index) for index in range(3)]
    [(0, 3), (3, 2), (5, 2)]
    """
    least, more = divmod(units, parts)
    return index * least + min(index, more), least + (index < more)


def pieces(
    cuts: Cuts, size: int, mesh: Mesh, at: Mapping[str, int], groups: int = 1
) -> tuple[tuple[int, int, int], ...]:
    """What the chip at the coordinates `at` has of a dim: `(groups, start, length)` by level.

    A level is what lies inside of so many groups and above the next; `groups` asks for one that
    no cut names. The piece of the dim is as long as the product of all lengths.
    """
    found: list[tuple[int, int, int]] = []
    levels = sorted({1, groups, *map(cut_groups, cuts)})
    for low, high in pairwise((*levels, size)):
        extent = high // low
        start, length = 0, extent
        for each in cuts:
            axis, of, units = cut_axis(each), cut_groups(each), cut_units(each)
            if of == low:
                parts, index = mesh.axis_size(axis), at.get(axis, 0)
                unit = _unit(extent, length, units, parts)
                first, count = share(length // unit if unit else 0, parts, index)
                start, length = start + first * unit, count * unit
        found.append((low, start, length))
    return tuple(found)


def piece_size(cuts: Cuts, size: int, mesh: Mesh, at: Mapping[str, int]) -> int:
    """How long the piece of a dim is that the chip at `at` has."""
    return sum(
        math.prod(length for _, _, length in pieces(inside, extent, mesh, at))
        for _, extent, inside in stretches(cuts, size)
    )


def units_left(cuts: Cuts, size: int, mesh: Mesh, at: Mapping[str, int]) -> int:
    """How many units, or equal parts, the last cut shares out among the chips around `at`; of
    stretches, in each."""
    (_, size, cuts), *_ = stretches(cuts, size)
    *outer, last = cuts
    axis, groups, units = cut_axis(last), cut_groups(last), cut_units(last)
    if not units:
        return mesh.axis_size(axis)
    inside = [of for each in cuts if (of := cut_groups(each)) > groups]
    extent = min([*inside, size]) // groups
    left = next(n for of, _, n in pieces(tuple(outer), size, mesh, at, groups) if of == groups)
    return left * units // extent


@cache
def fits(cuts: Cuts, size: int, mesh: Mesh) -> bool:
    """Whether the cuts come out on a dim of `size`, and leave no chip without a part."""
    try:
        for _, parts, counts in _counted(cuts, size, mesh):
            if min(counts) < parts and size:
                return False
    except AssertionError:
        return False
    return True


def is_uneven(cuts: Cuts, size: int, mesh: Mesh) -> bool:
    """Whether these cuts give some chips more of a dim than others."""
    return any(map(cut_units, cuts)) and any(_remainders(cuts, size, mesh))


def breaks(cuts: Cuts, size: int, mesh: Mesh) -> Iterator[tuple[str, int]]:
    """The axes, with the coordinates along them from which on pieces are smaller."""
    if any(map(cut_units, cuts)):
        yield from _remainders(cuts, size, mesh)


@cache
def _remainders(cuts: Cuts, size: int, mesh: Mesh) -> tuple[tuple[str, int], ...]:
    found = {
        (axis, count % parts)
        for axis, parts, counts in _counted(cuts, size, mesh)
        for count in counts
        if count % parts
    }
    return tuple(sorted(found))


def _counted(cuts: Cuts, size: int, mesh: Mesh) -> Iterator[tuple[str, int, set[int]]]:
    """Each axis with its chips, and the numbers of units that there are to share out among them.

    Chips along axes further out may have one more or one less.
    """
    for _, extent, inside in stretches(cuts, size):
        yield from _counted_by_level(inside, extent, mesh)


def _counted_by_level(cuts: Cuts, size: int, mesh: Mesh) -> Iterator[tuple[str, int, set[int]]]:
    levels = sorted({1, *map(cut_groups, cuts)})
    for low, high in pairwise((*levels, size)):
        assert high % low == 0, f"{cuts} of {size}: groups of {low} are not groups of {high}"
        extent = high // low
        lengths = {extent}
        for each in cuts:
            axis, of, units = cut_axis(each), cut_groups(each), cut_units(each)
            if of != low:
                continue
            parts = mesh.axis_size(axis)
            counts: set[int] = set()
            shorter: set[int] = set()
            for length in lengths:
                unit = _unit(extent, length, units, parts)
                count = length // unit if unit else 0
                counts.add(count)
                shorter |= {share(count, parts, index)[1] * unit for index in (0, parts - 1)}
            yield axis, parts, counts
            lengths = shorter


def _unit(extent: int, length: int, units: int, parts: int) -> int:
    """How long what is not cut is, of a level of `extent` of which `length` is left."""
    if not units:
        assert length % parts == 0, f"{parts} does not divide {length}"
        return length // parts
    assert extent % units == 0, f"{extent} is not made of {units} units"
    unit = extent // units
    assert length % max(unit, 1) == 0, f"{length} is not made of units of {unit}"
    return unit
