"""Mesh: the chips of a job as a grid with named axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from supernode.plan.cut import Cuts, cut_axis, cut_units, pieces, share, stretches


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

        The indices of its elements, in their order; each group or stretch that is cut gives a
        range. `part` is that of a cut by time.

        >>> Mesh((("dp", 2), ("cp", 2))).ranges(24, ("dp", "cp:4"), 1)
        (range(3, 6), range(9, 12))
        """
        time = {cut_axis(each): int(cut_axis(each)[1:]) for each in cuts if each.startswith("*")}
        at = self.coordinates(rank) | dict.fromkeys(time, part)
        timed = Mesh((*self.axes, *time.items()))
        found: list[range] = []
        for begin, extent, inside in stretches(tuple(cuts), size):
            levels = pieces(inside, extent, timed, at)
            steps = [extent // groups for groups, _, _ in levels[1:]]
            *outer, (_, first, length) = levels
            for places in product(*(range(start, start + n) for _, start, n in outer)):
                offsets = (place * step for place, step in zip(places, steps, strict=True))
                base = begin + first + sum(offsets)
                found.append(range(base, base + length))
        return tuple(found)

    def rank(self, coordinates: Mapping[str, int]) -> int:
        """The rank at these coordinates; along axes not named it is the first."""
        return sum(self.stride(axis) * at for axis, at in coordinates.items())

    def share(self, axis: str, units: int, at: Mapping[str, int]) -> tuple[int, int]:
        """Which of `units` the chip at `at` has along `axis`: the first of them, and how many."""
        return share(units, self.axis_size(axis), at[axis])

    def span(self, cuts: Cuts, at: Mapping[str, int]) -> tuple[int, int]:
        """How much of a dim cut by `cuts` lies before the piece of the chip at `at`, and how much
        in it; in a unit that depends on the cuts only.

        >>> Mesh((("tp", 4),)).span(("tp/6",), {"tp": 2})
        (4, 1)
        """
        equal = math.prod(self.axis_size(cut_axis(each)) for each in cuts if not cut_units(each))
        extent = equal * math.lcm(*(cut_units(each) or 1 for each in cuts))
        ((_, before, length),) = pieces(cuts, extent, self, at)
        return before, length

    def __str__(self) -> str:
        return " x ".join(f"{name}={size}" for name, size in self.axes) or "one chip"
