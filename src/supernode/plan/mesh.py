"""Mesh: the chips of a job as a grid with named axes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from supernode.plan.cut import cut_axis, cut_groups


@dataclass(frozen=True, slots=True)
class Mesh:
    """Named axes with their sizes; the last axis holds neighbouring ranks.

    >>> mesh = Mesh((("dp", 2), ("tp", 4)))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, "dp"), mesh.group(5, "tp")
    (8, {'dp': 1, 'tp': 1}, (1, 5), (4, 5, 6, 7))
    """

    axes: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """The number of chips."""
        return math.prod(size for _, size in self.axes)

    def axis_size(self, axis: str) -> int:
        """The number of chips along `axis`."""
        return dict(self.axes)[axis]

    def stride(self, axis: str) -> int:
        """How far apart in rank two neighbours along `axis` are."""
        names = [name for name, _ in self.axes]
        return math.prod(size for _, size in self.axes[names.index(axis) + 1 :])

    def coordinates(self, rank: int) -> dict[str, int]:
        """The position of `rank` along each axis."""
        return {name: rank // self.stride(name) % size for name, size in self.axes}

    def group(self, rank: int, axis: str) -> tuple[int, ...]:
        """The ranks that differ from `rank` along `axis` only, in order."""
        stride, size = self.stride(axis), self.axis_size(axis)
        first = rank - rank // stride % size * stride
        return tuple(first + i * stride for i in range(size))

    def ranges(self, size: int, cuts: Sequence[str], rank: int, part: int = 0) -> tuple[range, ...]:
        """Where in a dim of `size`, cut so (outermost first), the piece of `rank` lies.

        The indices of its elements, in their order; each group that is cut gives a range. `part` is
        that of a cut by time.

        >>> Mesh((("dp", 2), ("cp", 2))).ranges(24, ("dp", "cp:4"), 1)
        (range(3, 6), range(9, 12))
        """
        time = {cut_axis(each) for each in cuts if each.startswith("*")}
        sizes = dict(self.axes) | {axis: int(axis[1:]) for axis in time}
        at = self.coordinates(rank) | dict.fromkeys(time, part)
        taken: list[tuple[int, int]] = []  # groups and parts of the cuts further out
        found = [range(size)]
        for each in cuts:
            axis, groups = cut_axis(each), cut_groups(each)
            parts = sizes[axis]
            here = groups // math.prod(n for of, n in taken if of * n <= groups)
            found = list(_cut(found, here, parts, at[axis]))
            taken.append((groups, parts))
        return tuple(found)

    def __str__(self) -> str:
        return " x ".join(f"{name}={size}" for name, size in self.axes) or "one chip"


def _cut(ranges: Sequence[range], groups: int, parts: int, part: int) -> Iterator[range]:
    """The `part`-th of so many equal parts of each group of what `ranges` join to."""
    length = sum(map(len, ranges)) // groups
    assert length % parts == 0, f"{parts} parts of {length}"
    piece = length // parts
    for group in range(groups):
        first = group * length + part * piece
        yield from _slice(ranges, first, first + piece)


def _slice(ranges: Sequence[range], first: int, end: int) -> Iterator[range]:
    """Elements `first` to `end` of what `ranges` join to."""
    at = 0
    for each in ranges:
        found = each[max(0, first - at) : max(0, end - at)]
        if found:
            yield found
        at += len(each)
