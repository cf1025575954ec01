"""From one layout to another: collectives and slices, one axis at a time."""

import math
from typing import Protocol

from supernode.ir import Arg, Site, TensorType, Type, Value
from supernode.ops import MEAN, NORM2
from supernode.plan import Layout, Mesh, cut_axis, cut_groups


class Writer(Protocol):
    """What writes the ops of a block."""

    mesh: Mesh
    time: tuple[str, ...]
    scatters_first: tuple[str, ...]

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
            if where is not None and now.dims[where[0]][-1] == where[1] == each == axis:
                return self._exchange(local, axis, where[0], dim)
        if done:
            return self._reduce(local, time or done[0], None)
        for dim, cuts in enumerate(now.dims):
            if cuts != target.dims[dim][: len(cuts)]:
                return self._gather(local, dim)
        raise AssertionError(f"no way from {now} to {target}")

    def _may_scatter(self, axis: str, time: str | None) -> bool:
        return time is None or axis in self.writer.scatters_first

    def _shard(self, local: Value, dim: int, each: str) -> tuple[Value, Layout]:
        layout = _with_dim(self.layout, dim, (*self.layout.dims[dim], each))
        parts = self.writer.mesh.axis_size(cut_axis(each))
        grouped, at = self._grouped(local, dim, each)
        args: tuple[Arg, ...] = (grouped, at, cut_axis(each))
        out = self._emit("local.shard", args, _scaled(grouped.tensor, at, 1, parts))
        return self._flat(out, layout), layout

    def _gather(self, local: Value, dim: int) -> tuple[Value, Layout]:
        each = self.layout.dims[dim][-1]
        layout = _with_dim(self.layout, dim, self.layout.dims[dim][:-1])
        parts = self.writer.mesh.axis_size(cut_axis(each))
        grouped, at = self._grouped(local, dim, each)
        args: tuple[Arg, ...] = ((grouped,), cut_axis(each), (at,))
        out = self._emit("fabric.all_gather", args, _scaled(grouped.tensor, at, parts, 1))
        return self._flat(out, layout), layout

    def _exchange(self, local: Value, axis: str, old: int, new: int) -> tuple[Value, Layout]:
        layout = _with_dim(self.layout, old, self.layout.dims[old][:-1])
        layout = _with_dim(layout, new, (*layout.dims[new], axis))
        args: tuple[Arg, ...] = ((local,), axis, (new,), (old,))
        return self._emit("fabric.all_to_all", args, self._local(layout)), layout

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
            grouped, at = self._grouped(local, dim, each)
            piece = _scaled(grouped.tensor, at, 1, self.writer.mesh.axis_size(axis))
            out = self._emit("fabric.reduce_scatter", ((grouped,), axis, (at,), wire), piece)
            out = self._flat(out, layout)
        if kind == MEAN:
            parts = self.writer.mesh.axis_size(axis)
            out = self._emit("aten.div.Scalar", (out, parts), out.tensor)
        elif kind == NORM2:
            out = self._emit("aten.sqrt", (out,), out.tensor)
        return out, layout

    def _grouped(self, local: Value, dim: int, each: str) -> tuple[Value, int]:
        """The value with the groups that a cut cuts one by one as a dim of their own."""
        groups = cut_groups(each)
        if groups == 1:
            return local, dim
        # Cuts further out have taken some of the groups away.
        outer = [cut for cut in self.layout.dims[dim] if cut != each]
        sizes = [(cut_groups(cut), self.writer.mesh.axis_size(cut_axis(cut))) for cut in outer]
        here = groups // math.prod(size for of, size in sizes if of * size <= groups)
        shape = local.tensor.shape
        split = (*shape[:dim], here, shape[dim] // here, *shape[dim + 1 :])
        type_ = TensorType(local.tensor.dtype, split)
        return self._emit("aten.reshape", (local, split), type_), dim + 1

    def _flat(self, local: Value, layout: Layout) -> Value:
        type_ = self._local(layout)
        if local.type == type_:
            return local
        return self._emit("aten.reshape", (local, type_.shape), type_)

    def _local(self, layout: Layout) -> TensorType:
        type_ = self.writer.local_type(self.whole, layout)
        assert isinstance(type_, TensorType)
        return type_

    def _emit(self, name: str, args: tuple[Arg, ...], type_: TensorType) -> Value:
        return self.writer.emit(name, args, type_, self.site)


def _scaled(type_: TensorType, dim: int, times: int, parts: int) -> TensorType:
    """The type with one dim `times` as long, in `parts`."""
    shape = type_.shape
    return TensorType(type_.dtype, (*shape[:dim], shape[dim] * times // parts, *shape[dim + 1 :]))


def _appendable(current: Layout, target: Layout) -> list[tuple[int, str]]:
    """The (dim, cut) that the target adds innermost to what `current` already has."""
    found: list[tuple[int, str]] = []
    for dim, (have, want) in enumerate(zip(current.dims, target.dims, strict=True)):
        if len(want) > len(have) and want[: len(have)] == have:
            found.append((dim, want[len(have)]))
    return found


def _with_dim(layout: Layout, dim: int, cuts: tuple[str, ...]) -> Layout:
    return Layout((*layout.dims[:dim], cuts, *layout.dims[dim + 1 :]), layout.partial)
