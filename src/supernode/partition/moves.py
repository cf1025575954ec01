"""From one layout to another: collectives and slices, one axis at a time.

Collectives move pieces of one size. Where an axis cuts a dim unevenly, every piece is padded to the
longest before them, and the padding is dropped behind.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from supernode.ir import Arg, Site, TensorType, Type, Value
from supernode.ops import MEAN, NORM2
from supernode.partition.halves import joined
from supernode.plan import (
    Layout,
    Mesh,
    by_token,
    cut_axis,
    cut_groups,
    cut_units,
    has_stretches,
    is_contiguous,
    is_uneven,
    piece_size,
    pieces,
    share,
    stretches,
    units_left,
)


class Writer(Protocol):
    """What writes the ops of a block of the chip at the coordinates `at`."""

    mesh: Mesh
    time: tuple[str, ...]
    scatters_first: tuple[str, ...]
    at: Mapping[str, int]
    uneven: set[tuple[tuple[str, ...], int]]

    def emit(
        self,
        name: str,
        args: tuple[Arg, ...],
        type_: Type,
        site: Site,
    ) -> Value:
        """Appends an op with one output and returns it."""
        ...

    def local_type(self, type_: Type, layout: Layout) -> Type:
        """The type of one chip's piece."""
        ...


def move(
    writer: Writer, local: Value, whole: Type, source: Layout, target: Layout, site: Site
) -> Value:
    """The local value in layout `target` of what the chips hold as `local` in `source`."""
    for axis in writer.mesh.halved():
        ends = joined(source, axis), joined(target, axis)
        if ends[0] is not None and ends[1] is not None:
            source, target = ends[0], ends[1]
    current = source
    while current != target:
        local, current = _Move(writer, whole, current, site).step(local, target)
    return local


class _Move:
    """One step from a layout."""

    def __init__(self, writer: Writer, whole: Type, layout: Layout, site: Site) -> None:
        self.writer = writer
        self.whole = whole
        self.layout = layout
        self.site = site

    def step(self, local: Value, target: Layout) -> tuple[Value, Layout]:
        """One collective or slice nearer to `target`, the cheapest kind first."""
        now, partial = self.layout, dict(self.layout.partial)
        done = [axis for axis in partial if axis not in dict(target.partial)]
        # What is added up part after part is sent to other chips once.
        time = next((axis for axis in self.writer.time if axis in done), None)
        for dim, each in _appendable(now, target):
            axis = cut_axis(each)
            if axis not in partial and axis not in now.split_axes:
                return self._shard(local, dim, each)
            if partial.get(axis) in ("sum", MEAN) and self._may_scatter(axis, time):
                return self._reduce(local, axis, (dim, each))
            where = now.where(axis)
            if where is None or now.dims[where[0]][-1] != where[1]:
                continue
            if is_contiguous(where[1]) and is_contiguous(each):
                return self._exchange(local, where[0], dim, each)
        if done:
            return self._reduce(local, time or done[0], None)
        joined = next((each for each in target.partial if each[0] not in partial), None)
        if joined is not None and joined[0] not in now.split_axes:
            return self._join(local, joined, target)
        for dim, cuts in enumerate(now.dims):
            if cuts != target.dims[dim][: len(cuts)]:
                return self._gather(local, dim)
        raise AssertionError(f"no way from {now} to {target}")

    def _may_scatter(self, axis: str, time: str | None) -> bool:
        return time is None or axis in self.writer.scatters_first

    def _shard(self, local: Value, dim: int, each: str) -> tuple[Value, Layout]:
        layout = _with_dim(self.layout, dim, (*self.layout.dims[dim], each))
        local = self._by_chip(local, dim, layout.dims[dim])
        grouped, at = self._grouped(local, dim, each)
        parts = self._parts(layout, dim)
        args: tuple[Arg, ...] = (grouped, at, cut_axis(each))
        if cut_units(each):
            args = (*args, parts.units)
        out = self._emit("local.shard", args, _resized(grouped.tensor, at, parts.mine))
        return self._flat(out, layout, each), layout

    def _join(self, local: Value, part: tuple[str, str], target: Layout) -> tuple[Value, Layout]:
        """What all chips have as parts of a sum: the first one's is all of it."""
        out = self._emit("local.once", (local, part[0]), local.tensor)
        parts = tuple(each for each in target.partial if each in (*self.layout.partial, part))
        return out, Layout(self.layout.dims, parts)

    def _gather(self, local: Value, dim: int) -> tuple[Value, Layout]:
        each = self.layout.dims[dim][-1]
        layout = _with_dim(self.layout, dim, self.layout.dims[dim][:-1])
        parts = self._parts(self.layout, dim)
        grouped, at = self._grouped(local, dim, each)
        grouped = self._padded(grouped, at, parts, every=False)
        args: tuple[Arg, ...] = ((grouped,), cut_axis(each), (at,))
        whole = _resized(grouped.tensor, at, parts.most * parts.chips)
        out = self._emit("fabric.all_gather", args, whole)
        out = self._unpadded(out, at, parts, every=True)
        out = self._by_chip(out, dim, self.layout.dims[dim], back=True)
        return self._flat(out, layout, each), layout

    def _exchange(self, local: Value, old: int, new: int, each: str) -> tuple[Value, Layout]:
        layout = _with_dim(self.layout, old, self.layout.dims[old][:-1])
        layout = _with_dim(layout, new, (*layout.dims[new], each))
        here, there = self._parts(self.layout, old), self._parts(layout, new)
        local = self._padded(local, old, here, every=False)
        local = self._padded(local, new, there, every=True)
        args: tuple[Arg, ...] = ((local,), cut_axis(each), (new,), (old,))
        type_ = _resized(local.tensor, old, here.most * here.chips)
        out = self._emit("fabric.all_to_all", args, _resized(type_, new, there.most))
        out = self._unpadded(out, old, here, every=True)
        return self._unpadded(out, new, there, every=False), layout

    def _reduce(
        self, local: Value, axis: str, into: tuple[int, str] | None
    ) -> tuple[Value, Layout]:
        """Adds up the parts along `axis`, keeping the whole or one piece of a dim."""
        kind = dict(self.layout.partial)[axis]
        rest = tuple(part for part in self.layout.partial if part[0] != axis)
        layout = Layout(self.layout.dims, rest)
        if kind == NORM2:
            local = self._emit("aten.mul.Tensor", (local, local), local.tensor)
        wire = "sum" if kind in (MEAN, NORM2) else kind
        if into is None:
            out = self._emit("fabric.all_reduce", ((local,), axis, wire), local.tensor)
        else:
            dim, each = into
            layout = _with_dim(layout, dim, (*layout.dims[dim], each))
            local = self._by_chip(local, dim, layout.dims[dim])
            parts = self._parts(layout, dim)
            grouped, at = self._grouped(local, dim, each)
            grouped = self._padded(grouped, at, parts, every=True)
            piece = _resized(grouped.tensor, at, parts.most)
            out = self._emit("fabric.reduce_scatter", ((grouped,), axis, (at,), wire), piece)
            out = self._unpadded(out, at, parts, every=False)
            out = self._flat(out, layout, each)
        if kind == MEAN:
            chips = self.writer.mesh.axis_size(axis)
            out = self._emit("aten.div.Scalar", (out, chips), out.tensor)
        elif kind == NORM2:
            out = self._emit("aten.sqrt", (out,), out.tensor)
        return out, layout

    def _grouped(self, local: Value, dim: int, each: str) -> tuple[Value, int]:
        """The value with the groups that a cut cuts one by one as a dim of their own."""
        if has_stretches((each,)):
            return local, dim
        groups = cut_groups(each)
        if groups == 1:
            return local, dim
        levels = self._levels(self.layout.dims[dim], dim, groups)
        here = math.prod(length for of, length in levels if of < groups)
        shape = local.tensor.shape
        split = (*shape[:dim], here, shape[dim] // here, *shape[dim + 1 :])
        type_ = TensorType(local.tensor.dtype, split)
        told = _told(split, (*self.layout.dims[:dim], (), *self.layout.dims[dim:]))
        return self._emit("aten.reshape", (local, told), type_), dim + 1

    def _flat(self, local: Value, layout: Layout, each: str) -> Value:
        """The value without the dim that `_grouped` has made for a cut."""
        if is_contiguous(each) or has_stretches((each,)):
            return local
        type_ = self._local(layout)
        return self._emit("aten.reshape", (local, _told(type_.shape, layout.dims)), type_)

    def _by_chip(
        self, local: Value, dim: int, cuts: tuple[str, ...], *, back: bool = False
    ) -> Value:
        """The value with a dim in the order of the chips of its innermost cut where that cuts
        stretches, what each has of all of them together; or `back` from there."""
        if not has_stretches(cuts):
            return local
        mesh, axis, known = (
            self.writer.mesh,
            cut_axis(cuts[-1]),
            list(stretches(cuts, self._size(dim))),
        )
        here, there = range(len(known)), range(mesh.axis_size(axis))
        lengths = {
            (i, chip): piece_size(inside, size, mesh, {**self.writer.at, axis: chip})
            for i, (_, size, inside) in enumerate(known)
            for chip in there
        }
        by_stretch = [(i, chip) for i in here for chip in there]
        by_chip = [(i, chip) for chip in there for i in here]
        source, target = (by_chip, by_stretch) if back else (by_stretch, by_chip)
        ends = accumulate((lengths[each] for each in source), initial=0)
        starts = dict(zip(source, ends, strict=False))
        parts = tuple(
            self._emit(
                "aten.slice.Tensor",
                (local, dim, starts[each], starts[each] + lengths[each]),
                _resized(local.tensor, dim, lengths[each]),
            )
            for each in target
        )
        return self._emit("aten.cat", (parts, dim), local.tensor)

    def _parts(self, layout: Layout, dim: int) -> "_Parts":
        """What the innermost cut of a dim gives each chip along its axis, grouped by the cut."""
        cuts, mesh, at = layout.dims[dim], self.writer.mesh, self.writer.at
        axis = cut_axis(cuts[-1])
        chips = mesh.axis_size(axis)
        units = units_left(cuts, self._size(dim), mesh, at)
        if uneven := is_uneven(cuts, self._size(dim), mesh):
            self.writer.uneven.add((cuts, self._size(dim)))
        if has_stretches(cuts):
            whole = piece_size(cuts[:-1], self._size(dim), mesh, at)
        else:
            groups = cut_groups(cuts[-1])
            whole = math.prod(n for of, n in self._levels(cuts[:-1], dim, groups) if of >= groups)
        unit = whole // max(units, 1)
        return _Parts(
            units=units,
            longer=units % chips or chips,
            chips=chips,
            most=share(units, chips, 0)[1] * unit,
            least=share(units, chips, chips - 1)[1] * unit,
            mine=share(units, chips, at[axis])[1] * unit,
            uneven=uneven,
        )

    def _levels(self, cuts: tuple[str, ...], dim: int, groups: int) -> list[tuple[int, int]]:
        """How long this chip's piece of a dim is, by level."""
        found = pieces(cuts, self._size(dim), self.writer.mesh, self.writer.at, groups)
        return [(of, length) for of, _, length in found]

    def _size(self, dim: int) -> int:
        assert isinstance(self.whole, TensorType)
        return self.whole.shape[dim]

    def _padded(self, x: Value, dim: int, parts: "_Parts", *, every: bool) -> Value:
        """This chip's piece, or those of `every` chip along `dim`, as long as the longest."""
        if not parts.uneven:
            return x
        count = parts.chips if every else 1
        type_ = _resized(x.tensor, dim, parts.most * count)
        return self._emit("local.pad", (x, dim, *parts.lengths(every)), type_)

    def _unpadded(self, x: Value, dim: int, parts: "_Parts", *, every: bool) -> Value:
        """The reverse of `_padded`."""
        if not parts.uneven:
            return x
        counts, lengths = parts.lengths(every)
        size = sum(count * length for count, length in zip(counts, lengths, strict=True))
        type_ = _resized(x.tensor, dim, size)
        return self._emit("local.unpad", (x, dim, counts, lengths), type_)

    def _local(self, layout: Layout) -> TensorType:
        type_ = self.writer.local_type(self.whole, layout)
        assert isinstance(type_, TensorType)
        return type_

    def _emit(self, name: str, args: tuple[Arg, ...], type_: TensorType) -> Value:
        return self.writer.emit(name, args, type_, self.site)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The parts along an axis of so many `chips`: how long the first `longer` of them are and how
    long the others, and this chip's. `uneven`: somewhere in the mesh parts differ."""

    units: int
    longer: int
    chips: int
    most: int
    least: int
    mine: int
    uneven: bool

    def lengths(self, every: bool) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many parts are long and how many short, and how long these are."""
        if every:
            counts = (self.longer, self.chips - self.longer)
        else:
            counts = (1, 0) if self.mine == self.most else (0, 1)
        return counts, (self.most, self.least)


def _told(shape: tuple[int, ...], dims: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """A shape as an argument: how many rows there are at experts the run knows."""
    at_experts = (any(by_token(each) != each for each in cuts) for cuts in dims)
    return tuple(-1 if yes else size for size, yes in zip(shape, at_experts, strict=True))


def _resized(type_: TensorType, dim: int, size: int) -> TensorType:
    """The type with another size of one dim."""
    return TensorType(type_.dtype, (*type_.shape[:dim], size, *type_.shape[dim + 1 :]))


def _appendable(current: Layout, target: Layout) -> list[tuple[int, str]]:
    """The (dim, cut) that the target adds innermost to what `current` already has."""
    found: list[tuple[int, str]] = []
    for dim, (have, want) in enumerate(zip(current.dims, target.dims, strict=True)):
        if len(want) > len(have) and want[: len(have)] == have:
            found.append((dim, want[len(have)]))
    return found


def _with_dim(layout: Layout, dim: int, cuts: tuple[str, ...]) -> Layout:
    return Layout((*layout.dims[:dim], cuts, *layout.dims[dim + 1 :]), layout.partial)
