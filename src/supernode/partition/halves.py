"""What each inner axis splits, and axes of more chips than there are heads of keys and values.

Queries may have more heads than keys and values have, `r` of them for each (grouped-query
attention). An axis of at most as many chips as there are heads of keys splits these. A larger one
stands in the mesh as two halves next to each other: `tp.outer` splits heads of keys and values,
`tp.inner` the `r` heads of queries inside of each, so that its chips share keys and values; both
split all else. What both do alike is one collective over `tp`.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from supernode.errors import LayoutError
from supernode.ir import Program
from supernode.partition.classes import Classes, Part, read_whole
from supernode.partition.line import Axis
from supernode.partition.matrices import inner_classes
from supernode.plan import HALVES, Layout, cut, cut_axis, cut_units, cut_within, whole_axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """The axes of the mesh, some of them as halves; `split[axis]` are the classes that an axis of
    an inner scheme splits."""

    axes: tuple[Axis, ...]
    split: Mapping[str, list[Part]]


def inner_axes(program: Program, classes: Classes, axes: tuple[Axis, ...], line: str) -> Inner:
    """Which classes each inner axis splits.

    Raises:
        LayoutError: there are none.
    """
    made: list[Axis] = []
    split: dict[str, list[Part]] = {}
    for axis in axes:
        if not axis.scheme.inner:
            made.append(axis)
            continue
        found = _large_enough(program, classes, axis, line)
        outer, shared = _shared(program, classes, axis, found)
        within = [shared.get(part, part) for part in found]
        if outer == 1:
            made.append(axis)
            split[axis.name] = within
            continue
        sizes = outer, axis.size // outer
        for half, size, parts in zip(HALVES, sizes, (found, within), strict=True):
            made.append(replace(axis, name=axis.name + half, size=size))
            split[axis.name + half] = parts
    return Inner(axes=tuple(made), split=split)


def _large_enough(program: Program, classes: Classes, axis: Axis, line: str) -> list[Part]:
    found = inner_classes(program, classes)
    if not found:
        raise LayoutError(
            f"{axis.name}={axis.size} splits nothing: no parameter that the step reads is the "
            "matrix of a matmul",
            asked=f"layout {line}",
            fix="split the batch and what is stored (dp, fsdp)",
        )
    # A table of fewer rows than chips is not worth splitting: it stays whole, unless all are such.
    sizes: dict[Part, int] = defaultdict(int)
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        for dim, size in enumerate(value.tensor.shape if port.role == "param" else ()):
            place = classes.of("main", value, dim)
            sizes[place] = max(sizes[place], size)
    return [place for place in found if sizes.get(place, axis.size) >= axis.size] or found


def _shared(
    program: Program, classes: Classes, axis: Axis, found: list[Part]
) -> tuple[int, Mapping[Part, Part]]:
    """The size of the outer half, and for classes of fewer units than chips the class of what
    shares each unit: the heads of queries that read the same keys and values. One and none unless
    all of them have such a class, and a size fits."""
    narrow = [part for part in found if 0 < classes.divisor(part) < axis.size]
    if not narrow or axis.scheme.experts:
        return 1, {}
    whole, _ = read_whole(program, classes)
    shared: dict[Part, Part] = {}
    for part in narrow:
        inside = _inside_each(program, classes, part, whole)
        if inside is None:
            return 1, {}
        shared[part] = inside
    outer = _outer_size(axis.size, classes, shared)
    return (1, {}) if outer is None else (outer, shared)


def _inside_each(
    program: Program, classes: Classes, part: Part, whole: Collection[Part]
) -> Part | None:
    """What is inside of each unit of a class, if it can be split, as what is read `whole` can't:
    heads that share a head of keys, but not the width of one."""
    units = classes.divisor(part)
    found = {
        parts[units]
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
        for dim in range(len(value.tensor.shape) if port.role == "param" else 0)
        for parts in classes.outermost("main", value, dim)
        if parts[1] == part and units in parts
    }
    found.difference_update(whole)
    return found.pop() if len(found) == 1 else None


def _outer_size(size: int, classes: Classes, shared: Mapping[Part, Part]) -> int | None:
    """The best size of the outer half: the largest that divides the units, or the largest; None
    where none leaves few enough chips to the inner half."""
    most = min(map(classes.divisor, shared))
    inside = min(map(classes.divisor, shared.values()))
    fit = (n for n in range(1, most + 1) if size % n == 0 and size // n <= inside)
    return min(
        fit, key=lambda n: (any(classes.divisor(part) % n for part in shared), -n), default=None
    )


def joined(layout: Layout, axis: str) -> Layout | None:
    """The same with the halves of `axis` as one; None where they do not lie together.

    >>> print(joined(Layout((("tp.outer:8", "tp.inner:8"), ())), "tp"))
    [tp:8, -]
    >>> joined(Layout(((), ()), (("tp.inner", "sum"),)), "tp") is None
    True
    """
    outer, inner = (axis + half for half in HALVES)
    if layout.kind_of(outer) != layout.kind_of(inner):
        return None
    partial = ((axis if name == outer else name, k) for name, k in layout.partial if name != inner)
    found = Layout(tuple(_as_one(cuts, axis) for cuts in layout.dims), tuple(partial))
    return None if {outer, inner} & {*found.split_axes} else found


def _as_one(cuts: tuple[str, ...], axis: str) -> tuple[str, ...]:
    names = [cut_axis(each) for each in cuts]
    outer, inner = (axis + half for half in HALVES)
    if outer not in names or inner not in names:
        return cuts
    at = names.index(outer)
    first, *others = cuts[at : at + 2]
    within, even = cut_within(first), not any(map(cut_units, cuts[at : at + 2]))
    if names[at + 1 : at + 2] != [inner] or cut_within(others[0]) != within or not even:
        return cuts
    return (*cuts[:at], cut(axis, within), *cuts[at + 2 :])


def other_half(axis: str) -> str | None:
    """Of an inner half the outer one; None of all else."""
    whole = whole_axis(axis)
    return whole + HALVES[0] if axis == whole + HALVES[1] else None
