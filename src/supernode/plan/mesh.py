"""Mesh: the chips of a job as a grid with named axes."""

import math
from dataclasses import dataclass


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

    def __str__(self) -> str:
        return " x ".join(f"{name}={size}" for name, size in self.axes) or "one chip"
