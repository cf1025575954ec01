"""The body of a local block while it is being written: fresh values, ops, and changes of layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from supernode.ir import Arg, HostType, Op, Phase, Site, TensorType, Type, Value
from supernode.ops import MEAN, NORM2, row
from supernode.plan import Layout, Mesh

COLLECTIVES = ("fabric.all_reduce", "fabric.reduce_scatter", "fabric.all_gather")
"""The collectives that have a form for many values."""


@dataclass(slots=True)
class Held:
    """A value of the global program as the chips hold it: by layout, the newest one last."""

    whole: Type
    versions: dict[Layout, Value] = field(default_factory=dict[Layout, Value])
    phases: dict[Layout, Phase] = field(default_factory=dict[Layout, Phase])
    view: Op | None = None

    @property
    def layout(self) -> Layout:
        """The layout it has now."""
        return next(reversed(self.versions))

    @property
    def local(self) -> Value:
        """The local value of that layout."""
        return self.versions[self.layout]


class Emitter:
    """Writes one local block.

    `held` maps ids of global values to what the chips hold of them; `hosts` maps those of host
    numbers to local values.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.ops: list[Op] = []
        self.held: dict[int, Held] = {}
        self.hosts: dict[int, Value] = {}
        self._next_id = 0

    def fresh(self, type_: Type) -> Value:
        """A new local value."""
        value = Value(self._next_id, type_)
        self._next_id += 1
        return value

    def local_type(self, type_: Type, layout: Layout) -> Type:
        """The type of one chip's piece."""
        if isinstance(type_, HostType):
            return type_
        return TensorType(type_.dtype, layout.local_shape(type_.shape, self.mesh))

    def emit(
        self,
        name: str,
        args: tuple[Arg, ...],
        type_: Type,
        site: Site,
        kwargs: tuple[tuple[str, Arg], ...] = (),
    ) -> Value:
        """Appends an op with one output and returns it."""
        out = self.fresh(type_)
        self.ops.append(Op(name=name, args=args, kwargs=kwargs, outputs=(out,), site=site))
        return out

    def define(self, value: Value, layout: Layout, local: Value, view: Op | None = None) -> None:
        """Records that the chips hold the global `value` as `local`."""
        self.held[value.id] = Held(value.type, {layout: local}, view=view)

    def get(self, value: Value, target: Layout, site: Site) -> Value:
        """The local value of the global `value` in layout `target`, moved there if need be."""
        held = self.held[value.id]
        known = held.versions.get(target)
        # A gathered weight is gathered again in the next phase rather than kept in memory.
        if known is not None and held.phases.get(target, site.phase) == site.phase:
            return known
        local = self._through_view(held, target, site)
        if local is None:
            local = self._move(held.local, held.whole, held.layout, target, site)
        self._remember(held, target, local, site)
        return local

    def _remember(self, held: Held, target: Layout, local: Value, site: Site) -> None:
        if set(target.partial) < set(held.layout.partial):
            # Once added up, the parts are of no more use.
            held.versions = {target: local}
            return
        if set(target.split_axes) < set(held.layout.split_axes):
            held.phases[target] = site.phase
        # The newest stays what it was: later ops start from the stored pieces.
        held.versions = {target: local} | {k: v for k, v in held.versions.items() if k != target}

    def _through_view(self, held: Held, target: Layout, site: Site) -> Value | None:
        """A view of split pieces is gathered at its root, so that a weight moves once."""
        op = held.view
        gathers = set(held.layout.split_axes) - set(target.split_axes)
        if op is None or held.layout.partial or not gathers:
            return None
        formula = row(op).formula(op)
        split = _split_of(formula.outputs[0], target)
        if not all(formula.splittable(factor) for factor in split):
            return None
        (source,) = op.inputs
        dims = tuple(split.get(dim[0], ()) if dim else () for dim in formula.inputs[0])
        root = self.get(source, Layout(dims), site)
        mapped = Op(
            name=op.name, args=(root, *op.args[1:]), kwargs=op.kwargs, outputs=(), site=op.site
        )
        out = self.fresh(self.local_type(held.whole, target))
        shaped = row(op).local(mapped, split, (out.type,))
        self.ops.append(
            Op(name=shaped.name, args=shaped.args, kwargs=op.kwargs, outputs=(out,), site=op.site)
        )
        return out

    def _move(self, local: Value, whole: Type, source: Layout, target: Layout, site: Site) -> Value:
        current = source
        while current != target:
            local, current = self._step(local, whole, current, target, site)
        return local

    def _step(
        self, local: Value, whole: Type, current: Layout, target: Layout, site: Site
    ) -> tuple[Value, Layout]:
        """One collective or slice nearer to `target`, the cheapest kind first."""
        partial = dict(current.partial)
        goal = dict(target.partial)
        done = [axis for axis in partial if axis not in goal]
        for dim, axis in _appendable(current, target):
            if axis not in partial and axis not in current.split_axes:
                return self._shard(local, whole, current, dim, axis, site)
            if partial.get(axis) in ("sum", MEAN):
                return self._reduce(local, whole, current, axis, dim, site)
            if (old := current.dim_of(axis)) is not None and current.dims[old][-1] == axis:
                return self._exchange(local, whole, current, axis, old, dim, site)
        if done:
            return self._reduce(local, whole, current, done[0], None, site)
        for dim, axes in enumerate(current.dims):
            if axes != target.dims[dim][: len(axes)]:
                return self._gather(local, whole, current, axes[-1], dim, site)
        raise AssertionError(f"no way from {current} to {target}")

    def _shard(
        self, local: Value, whole: Type, current: Layout, dim: int, axis: str, site: Site
    ) -> tuple[Value, Layout]:
        layout = _with_dim(current, dim, (*current.dims[dim], axis))
        out = self.emit("local.shard", (local, dim, axis), self.local_type(whole, layout), site)
        return out, layout

    def _gather(
        self, local: Value, whole: Type, current: Layout, axis: str, dim: int, site: Site
    ) -> tuple[Value, Layout]:
        layout = _with_dim(current, dim, current.dims[dim][:-1])
        type_ = self.local_type(whole, layout)
        return self.emit("fabric.all_gather", ((local,), axis, (dim,)), type_, site), layout

    def _exchange(
        self, local: Value, whole: Type, current: Layout, axis: str, old: int, new: int, site: Site
    ) -> tuple[Value, Layout]:
        layout = _with_dim(current, old, current.dims[old][:-1])
        layout = _with_dim(layout, new, (*layout.dims[new], axis))
        type_ = self.local_type(whole, layout)
        args: tuple[Arg, ...] = ((local,), axis, (new,), (old,))
        return self.emit("fabric.all_to_all", args, type_, site), layout

    def _reduce(
        self, local: Value, whole: Type, current: Layout, axis: str, dim: int | None, site: Site
    ) -> tuple[Value, Layout]:
        """Adds up the parts along `axis`, keeping the whole or one piece along `dim`."""
        kind = dict(current.partial)[axis]
        layout = Layout(current.dims, tuple(p for p in current.partial if p[0] != axis))
        if kind == NORM2:
            local = self.emit("aten.mul.Tensor", (local, local), local.type, site)
        wire = "sum" if kind in (MEAN, NORM2) else kind
        if dim is None:
            args: tuple[Arg, ...] = ((local,), axis, wire)
            out = self.emit("fabric.all_reduce", args, local.type, site)
        else:
            layout = _with_dim(layout, dim, (*layout.dims[dim], axis))
            args = ((local,), axis, (dim,), wire)
            out = self.emit("fabric.reduce_scatter", args, self.local_type(whole, layout), site)
        if kind == MEAN:
            parts = self.mesh.axis_size(axis)
            out = self.emit("aten.div.Scalar", (out, parts), out.type, site)
        elif kind == NORM2:
            out = self.emit("aten.sqrt", (out,), out.type, site)
        return out, layout


def _appendable(current: Layout, target: Layout) -> list[tuple[int, str]]:
    """The (dim, axis) that the target adds innermost to what `current` already has."""
    found: list[tuple[int, str]] = []
    for dim, (have, want) in enumerate(zip(current.dims, target.dims, strict=True)):
        if len(want) > len(have) and want[: len(have)] == have:
            found.append((dim, want[len(have)]))
    return found


def _with_dim(layout: Layout, dim: int, axes: tuple[str, ...]) -> Layout:
    dims = (*layout.dims[:dim], axes, *layout.dims[dim + 1 :])
    return Layout(dims, layout.partial)


def _split_of(dims: tuple[tuple[str, ...], ...], layout: Layout) -> Mapping[str, tuple[str, ...]]:
    return {dim[0]: axes for dim, axes in zip(dims, layout.dims, strict=True) if dim and axes}
