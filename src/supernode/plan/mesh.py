"""Mesh: the chips of a job as a grid with named axes."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

from supernode.plan.cut import Cuts, cut_axis, cut_units, pieces, share, stretches

HALVES = (".outer", ".inner")
"""How the halves of an axis are called: `tp.outer` and `tp.inner` of `tp`."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Named axes with their sizes; the last axis holds neighbouring ranks, from `first` on.

    An axis may stand here as two halves, next to each other; its own name is that of both.

    Stages of a pipeline that have different axes are `stages`: `axes` is then the one along them.

    >>> mesh = Mesh((("dp", 2), ("tp", 4)))
    >>> mesh.size, mesh.coordinates(5), mesh.group(5, "dp"), mesh.group(5, "tp")
    (8, {'dp': 1, 'tp': 1}, (1, 5), (4, 5, 6, 7))
    >>> mesh = Mesh((("tp.outer", 2), ("tp.inner", 2)))
    >>> mesh.coordinates(3), mesh.group(3, "tp.outer"), mesh.group(3, "tp")
    ({'tp.outer': 1, 'tp.inner': 1, 'tp': 3}, (1, 3), (0, 1, 2, 3))
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
        """The axes, with those of the stages where these differ and those that stand as halves; one
        of each name and size."""
        inside = (axis for stage in self.stages for axis in stage.every_axis())
        names = dict.fromkeys(whole_axis(name) for name, _ in self.axes)
        wholes = [(name, self.axis_size(name)) for name in names]
        return (*dict.fromkeys((*wholes, *self.axes, *inside)),)

    def around(self, rank: int) -> "Mesh":
        """The grid that `rank` stands in: that of its stage, where stages differ."""
        stages = self.stages or (self,)
        return stages[bisect_right(stages, rank, key=lambda stage: stage.first) - 1]

    def axis_size(self, axis: str) -> int:
        """The number of chips along `axis`."""
        sizes = dict(self.axes)
        return sizes[axis] if axis in sizes else math.prod(sizes[axis + half] for half in HALVES)

    def stride(self, axis: str) -> int:
        """How far apart in rank two neighbours along `axis` are."""
        names = [name for name, _ in self.axes]
        last = names.index(axis if axis in names else axis + HALVES[1])
        return math.prod(size for _, size in self.axes[last + 1 :])

    def coordinates(self, rank: int) -> dict[str, int]:
        """The position of `rank` along each axis."""
        if self.stages:
            grid = self.around(rank)
            ((axis, _),) = self.axes
            return {axis: self.stages.index(grid), **grid.coordinates(rank)}
        here = rank - self.first
        names = dict.fromkeys((*(name for name, _ in self.axes), *self.halved()))
        return {name: here // self.stride(name) % self.axis_size(name) for name in names}

    def halved(self) -> Iterator[str]:
        """The names of the axes that stand as halves."""
        return (name.removesuffix(HALVES[1]) for name, _ in self.axes if name.endswith(HALVES[1]))

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
        return self.first + sum(
            self.stride(axis) * coordinates.get(axis, 0) for axis, _ in self.axes
        )

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


def whole_axis(name: str) -> str:
    """The axis that `name` is a half of, or the name itself.

    >>> whole_axis("tp.outer"), whole_axis("tp")
    ('tp', 'tp')
    """
    half = next((half for half in HALVES if name.endswith(half)), "")
    return name.removesuffix(half)
