"""Mesh: the chips of a job as a grid with named axes."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

from supernode.plan.cut import Cuts, cut_axis, cut_units, pieces, share, stretches


@dataclass(frozen=True, slots=True)
class Mesh:
    """Named axes with their sizes; the last axis holds neighbouring ranks, from `first` on.

    Stages of a pipeline that have different axes are `stages`: `axes` is then the one along them.

    >>> mesh = Mesh((("dp", 2), ("tp", 4)))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, "dp"), mesh.group(5, "tp")
    (8, {'dp': 1, 'tp': 1}, (1, 5), (4, 5, 6, 7))
    """

    axes: tuple[tuple[str, int], ...]
    first: int = 0
    stages: tuple["Mesh", ...] = ()

    @staticmethod
    def of_stages(axis: str, stages: Sequence["Mesh"]) -> "Mesh":
        """Stages of a pipeline along `axis`, each with a grid of its own, one behind another.

        >>> mesh = Mesh.of_stages("pp", (Mesh((("tp", 2),)), Mesh((("dp", 4),))))
        >>> mesh.size, mesh.coordinates(5), mesh.group(5, "dp"), mesh.rank({"pp": 1})
        (6, {'pp': 1, 'dp': 3}, (2, 3, 4, 5), 2)
        """
        firsts = accumulate((stage.size for stage in stages), initial=0)
        placed = tuple(
            replace(stage, first=first) for stage, first in zip(stages, firsts, strict=False)
        )
        return Mesh(((axis, len(placed)),), stages=placed)

    @property
    def size(self) -> int:
        """The number of chips."""
        if self.stages:
            return sum(stage.size for stage in self.stages)
        return math.prod(size for _, size in self.axes)

    def every_axis(self) -> tuple[tuple[str, int], ...]:
        """The axes, with those of the stages where these differ; one of each name and size."""
        inside = (axis for stage in self.stages for axis in stage.axes)
        return (*self.axes, *dict.fromkeys(inside))

    def around(self, rank: int) -> "Mesh":
        """The grid that `rank` stands in: that of its stage, where stages differ."""
        stages = self.stages or (self,)
        return stages[bisect_right(stages, rank, key=lambda stage: stage.first) - 1]

    def axis_size(self, axis: str) -> int:
        """The number of chips along `axis`."""
        return dict(self.axes)[axis]

    def stride(self, axis: str) -> int:
        """How far apart in rank two neighbours along `axis` are."""
        names = [name for name, _ in self.axes]
        return math.prod(size for _, size in self.axes[names.index(axis) + 1 :])

    def coordinates(self, rank: int) -> dict[str, int]:
        """The position of `rank` along each axis."""
        if self.stages:
            grid = self.around(rank)
            ((axis, _),) = self.axes
            return {axis: self.stages.index(grid), **grid.coordinates(rank)}
        here = rank - self.first
        return {name: here // self.stride(name) % size for name, size in self.axes}

    def group(self, rank: int, axis: str) -> tuple[int, ...]:
        """The ranks that differ from `rank` along `axis` only, in order."""
        if self.stages:
            return self.around(rank).group(rank, axis)
        stride, size = self.stride(axis), self.axis_size(axis)
        first = rank - (rank - self.first) // stride % size * stride
        return tuple(first + i * stride for i in range(size))

    def ranges(self, size: int, cuts: Sequence[str], rank: int, part: int = 0) -> tuple[range, ...]:
        """Where in a dim of `size`, cut so (outermost first), the piece of `rank` lies.

        The indices of its elements, in their order; each group or stretch that is cut gives a
        range. `part` is that of a cut by time.

        >>> Mesh((("dp", 2), ("cp", 2))).ranges(24, ("dp", "cp:4"), 1)
        (range(3, 6), range(9, 12))
        """
        if self.stages:
            return self.around(rank).ranges(size, cuts, rank, part)
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
        if self.stages:
            ((axis, _),) = self.axes
            inside = {name: at for name, at in coordinates.items() if name != axis}
            return self.stages[coordinates.get(axis, 0)].rank(inside)
        return self.first + sum(self.stride(axis) * at for axis, at in coordinates.items())

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
        if self.stages:
            ((axis, _),) = self.axes
            return f"{axis}={' / '.join(map(str, self.stages))}"
        return " x ".join(f"{name}={size}" for name, size in self.axes) or "one chip"
