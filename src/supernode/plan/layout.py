"""Layout: how one value lies on a mesh."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product

from supernode.plan.cut import cut_axis, cut_name, cut_units, is_contiguous, piece_size, pieces
from supernode.plan.mesh import Mesh

ON_HOST, AT_PEERS = "host", "peers"
"""Places where a value may live: the memory of the chip's host; that of another chip, chip r's and
chip N-1-r's for each other."""


@dataclass(frozen=True, slots=True)
class Layout:
    """For each dim how mesh axes cut it, outermost first; axes that hold partial results.

    `Layout((("dp",), (), ("tp",)))` splits dim 0 over dp and dim 2 over tp. An axis named nowhere
    holds the same values in each of its chips. `partial=(("tp", "sum"),)` says that the true value
    is the sum over tp of what its chips hold. An axis may cut groups or stretches of a dim, or in
    unequal parts, see `cut`. `only=(("pp", 2),)` says that no chip but those at 2 along pp holds
    any of it. `place` is where a chip's piece lives when it is not in use: in its own memory if
    empty, else `ON_HOST` or `AT_PEERS`.

    >>> print(Layout((("dp", "fsdp"), ()), (("tp", "sum"),)))
    [dp*fsdp, -] sum(tp)
    """

    dims: tuple[tuple[str, ...], ...]
    partial: tuple[tuple[str, str], ...] = ()
    only: tuple[tuple[str, int], ...] = ()
    place: str = ""

    @staticmethod
    def whole(rank: int) -> "Layout":
        """The layout of a value of `rank` dims that every chip holds in full."""
        return Layout(((),) * rank)

    @property
    def split_axes(self) -> tuple[str, ...]:
        """The axes some dim is split over."""
        return tuple(cut_axis(each) for dim in self.dims for each in dim)

    @property
    def is_plain(self) -> bool:
        """Whether every chip's piece is one contiguous range of each dim."""
        cuts = [each for dim in self.dims for each in dim]
        return all(is_contiguous(c) and cut_name(c) == cut_axis(c) for c in cuts)

    def where(self, axis: str) -> tuple[int, str] | None:
        """The dim that `axis` splits and how it cuts it, or None."""
        return next(
            (
                (i, each)
                for i, dim in enumerate(self.dims)
                for each in dim
                if cut_axis(each) == axis
            ),
            None,
        )

    def without(self, axis: str) -> "Layout":
        """The layout along the other axes."""
        dims = tuple(tuple(each for each in dim if cut_axis(each) != axis) for dim in self.dims)
        partial = tuple(part for part in self.partial if part[0] != axis)
        only = tuple(place for place in self.only if place[0] != axis)
        return replace(self, dims=dims, partial=partial, only=only)

    def at(self, axis: str, coordinate: int) -> "Layout":
        """The same on the chips at one coordinate along `axis` only."""
        return replace(self, only=(*self.only, (axis, coordinate)))

    def moved_to(self, place: str) -> "Layout":
        """The same, living in another place."""
        return replace(self, place=place)

    def holds(self, mesh: Mesh, rank: int) -> bool:
        """Whether chip `rank` holds any of it."""
        if not self.only:
            return True
        at = mesh.coordinates(rank)
        return all(at[axis] == coordinate for axis, coordinate in self.only)

    def holders(self, mesh: Mesh) -> tuple[int, ...]:
        """The chips that hold some of it."""
        return tuple(rank for rank in range(mesh.size) if self.holds(mesh, rank))

    def kind_of(self, axis: str) -> str | None:
        """How the parts along `axis` combine to the true value (`sum`, `max` …), or None."""
        return dict(self.partial).get(axis)

    def parts(self, dim: int, mesh: Mesh) -> int:
        """In how many pieces `dim` is cut."""
        return math.prod(mesh.axis_size(cut_axis(each)) for each in self.dims[dim])

    @property
    def has_units(self) -> bool:
        """Whether the chips may have pieces of unequal sizes."""
        return any(cut_units(each) for dim in self.dims for each in dim)

    def local_shape(self, shape: tuple[int, ...], mesh: Mesh, rank: int = 0) -> tuple[int, ...]:
        """The shape of the piece that chip `rank` has of a value of `shape`.

        No chip has a larger one than chip 0, but for what only some chips hold: the others have
        nothing, a first dim of 0, or a single number that does not count.
        """
        if self.only and not self.holds(mesh, rank):
            if mesh.stages:
                return (0, *shape[1:]) if shape else ()
            return (0, *replace(self, only=()).local_shape(shape, mesh, rank)[1:]) if shape else ()
        mesh = mesh.around(rank)
        if not self.has_units:
            parts = [self.parts(i, mesh) for i in range(len(shape))]
            assert all(size % n == 0 for size, n in zip(shape, parts, strict=True))
            return tuple(size // n for size, n in zip(shape, parts, strict=True))
        at = mesh.coordinates(rank)
        return tuple(
            piece_size(cuts, size, mesh, at) for cuts, size in zip(self.dims, shape, strict=True)
        )

    def slices(self, shape: tuple[int, ...], mesh: Mesh, rank: int) -> tuple[slice, ...]:
        """Which part of the whole value of `shape` the chip `rank` holds; for plain layouts."""
        assert self.is_plain
        if not self.holds(mesh, rank):
            if mesh.stages:
                return (slice(0, 0), *map(slice, shape[1:])) if shape else ()
            here = replace(self, only=()).slices(shape, mesh, rank)
            return (slice(0, 0), *here[1:]) if shape else ()
        mesh = mesh.around(rank)
        at = mesh.coordinates(rank)
        out: list[slice] = []
        for cuts, size in zip(self.dims, shape, strict=True):
            ((_, start, length),) = pieces(cuts, size, mesh, at)
            out.append(slice(start, start + length))
        return tuple(out)

    def boxes(
        self, shape: tuple[int, ...], mesh: Mesh, rank: int
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Each box of the whole value of `shape` that chip `rank` holds, and where it is in its
        piece: one for a plain layout, more where groups or stretches of dims are cut."""
        if shape and not self.holds(mesh, rank):
            return
        assert all(cut_name(each) == cut_axis(each) for dim in self.dims for each in dim)
        found: list[list[tuple[slice, slice]]] = []
        for cuts, size in zip(self.dims, shape, strict=True):
            ranges = mesh.ranges(size, cuts, rank)
            ends = pairwise((0, *accumulate(map(len, ranges))))
            pairs = zip(ranges, ends, strict=True)
            found.append([(slice(r.start, r.stop), slice(*within)) for r, within in pairs])
        for box in product(*found):
            yield tuple(whole for whole, _ in box), tuple(piece for _, piece in box)

    def __str__(self) -> str:
        dims = ", ".join("*".join(dim) or "-" for dim in self.dims)
        parts = "".join(f" {kind}({axis})" for axis, kind in self.partial)
        places = "".join(f" {axis}@{coordinate}" for axis, coordinate in self.only)
        home = f" in {self.place}" if self.place else ""
        return f"[{dims}]{parts}{places}{home}"
