"""The body of a local block while it is being written: fresh values, ops, and changes of layout."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from supernode.ir import Arg, HostType, Op, Phase, Site, TensorType, Type, Value, filled
from supernode.ops import row
from supernode.partition.cuts import layout_of, split_of
from supernode.partition.experts import Experts, sent_along, taken_along
from supernode.partition.line import Axis, mesh_of
from supernode.partition.moves import move
from supernode.plan import Layout, by_token, cut_axis

COLLECTIVES = ("fabric.all_reduce", "fabric.reduce_scatter", "fabric.all_gather")
"""The collectives that have a form for many values."""


@dataclass(slots=True)
class Held:
    """A value of the global program as the chips hold it: by layout, the newest one last."""

    whole: Type
    versions: dict[Layout, Value] = field(default_factory=dict[Layout, Value])
    phases: dict[Layout, Phase] = field(default_factory=dict[Layout, Phase])
    moved_by: Op | None = None
    filled_by: Op | None = None

    @property
    def layout(self) -> Layout:
        """The layout it has now."""
        return next(reversed(self.versions))

    @property
    def local(self) -> Value:
        """The local value of that layout."""
        return self.versions[self.layout]


class Emitter:
    """Writes one local block of the chip at the coordinates `at`, 0 where they say nothing.

    `uneven` are the cuts it has met that may give chips unequal parts, with the sizes of the dims.
    `held` maps ids of global values to what the chips hold of them; `hosts` maps those of host
    numbers to local values. `time` names the axes of the mesh whose parts follow each other,
    `scatters_first` those over which gradients go into pieces part by part: chips that keep only
    pieces of the weights have no memory for whole gradients. `counts` are values whose parts are
    read even after they were added up, `keys` those that are counted where they were sorted, though
    sent to experts too; `ends` says for sorted rows which value has the ends of
    their groups.
    """

    def __init__(
        self,
        axes: tuple[Axis, ...],
        at: Mapping[str, int],
        counts: Collection[int] = (),
        keys: Collection[int] = (),
        ends: Mapping[int, Value] | None = None,
    ) -> None:
        self.mesh = mesh_of(axes)
        self.rank = self.mesh.rank(at)
        self.at: Mapping[str, int] = self.mesh.coordinates(self.rank)
        self.experts = Experts(self)
        self.time = tuple(axis.name for axis in axes if axis.scheme.time)
        self.scatters_first = tuple(axis.name for axis in axes if "param" in axis.scheme.keeps)
        self.uneven: set[tuple[tuple[str, ...], int]] = set()
        self._counts, self._keys = counts, keys
        self._ends = ends or {}
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
        """The type of this chip's piece."""
        if isinstance(type_, HostType):
            return type_
        if layout.has_units:
            self.uneven.update(zip(layout.dims, type_.shape, strict=True))
        return TensorType(type_.dtype, layout.local_shape(type_.shape, self.mesh, self.rank))

    def largest_bytes(self, value: Value, layout: Layout) -> int:
        """What the largest piece takes: what is decided by it is decided alike for every chip."""
        if not layout.has_units:
            return self.held[value.id].versions[layout].type.size_bytes
        shape = layout.local_shape(value.tensor.shape, self.mesh)
        return TensorType(value.tensor.dtype, shape).size_bytes

    def emit(
        self,
        name: str,
        args: tuple[Arg, ...],
        type_: Type,
        site: Site,
    ) -> Value:
        """Appends an op with one output and returns it."""
        out = self.fresh(type_)
        self.ops.append(Op(name=name, args=args, outputs=(out,), site=site))
        return out

    def define(
        self,
        value: Value,
        layout: Layout,
        local: Value,
        *,
        moved_by: Op | None = None,
        filled_by: Op | None = None,
    ) -> None:
        """Records that the chips hold the global `value` as `local`.

        `moved_by` is the op that made it if that only rearranges its one operand, `filled_by` if it
        is one number all over.
        """
        self.held[value.id] = Held(value.type, {layout: local}, {}, moved_by, filled_by)

    def get(self, value: Value, target: Layout, site: Site) -> Value:
        """The local value of the global `value` in layout `target`, moved there if need be."""
        held = self.held[value.id]
        known = held.versions.get(target)
        # A gathered weight is gathered again in the next phase rather than kept in memory.
        if known is not None and held.phases.get(target, site.phase) == site.phase:
            return known
        local = self._filled(held, target, site) or self._at_the_root(held, target, site)
        if local is None and (way := sent_along(held.layout, target)):
            local = self._sent(value, target, *way, site)
        elif local is None:
            local = move(self, held.local, held.whole, held.layout, target, site)
        if value.id in self._counts or value.id in self._keys:
            held.versions = {target: local} | held.versions
        else:
            self._remember(held, target, local, site)
        return local

    def _sent(self, value: Value, target: Layout, axis: str, dim: int, site: Site) -> Value:
        """Rows at the chips of their experts, or back from there; all else is moved before."""
        held = self.held[value.id]
        dims = (*target.dims[:dim], held.layout.dims[dim], *target.dims[dim + 1 :])
        local = self.get(value, Layout(dims, target.partial), site)
        own = self.held[self._ends[value.id].id]
        if taken_along(target.dims[dim]) and axis not in map(cut_axis, held.layout.dims[dim]):
            type_ = self.local_type(held.whole, target)
            assert isinstance(type_, TensorType)
            return self.experts.take(local, dim, own.local, axis, type_.shape[dim], site)
        assert own.layout.kind_of(axis) == "sum", f"{value} is sent by what is no count"
        back = target.dims[dim] == tuple(map(by_token, target.dims[dim]))
        return self.experts.send(local, dim, own.local, axis, back, site)

    def place_rows(self, value: Value, dim: int, axis: str, site: Site) -> None:
        """Rows that chips with the same tokens have each for its own experts become parts of the
        rows of all, if they are not known whole."""
        held = self.held[value.id]
        now = held.layout
        if taken_along(now.dims[dim]) != axis:
            return
        dims = (*now.dims[:dim], now.dims[dim][:-1], *now.dims[dim + 1 :])
        whole, parts = Layout(dims, now.partial), Layout(dims, (*now.partial, (axis, "sum")))
        known = next((each for each in (whole, parts) if each in held.versions), None)
        if known is None:
            type_ = self.local_type(held.whole, parts)
            assert isinstance(type_, TensorType)
            ends = self.held[self._ends[value.id].id].local
            local, known = held.local, parts
            held.versions[parts] = self.experts.place(
                local, dim, ends, axis, type_.shape[dim], site
            )
        held.versions[known] = held.versions.pop(known)

    def _remember(self, held: Held, target: Layout, local: Value, site: Site) -> None:
        if set(target.partial) < set(held.layout.partial):
            # Once added up, the parts are of no more use.
            held.versions = {target: local}
            return
        if sent_along(held.layout, target):
            # Later ops, and other blocks, start from where the rows are now.
            held.versions.pop(target, None)
            held.versions[target] = local
            return
        if set(target.split_axes) < set(held.layout.split_axes):
            held.phases[target] = site.phase
        # The newest stays what it was: later ops start from the stored pieces.
        held.versions = {target: local} | {k: v for k, v in held.versions.items() if k != target}

    def _filled(self, held: Held, target: Layout, site: Site) -> Value | None:
        """What is one number all over, made once more where it is wanted."""
        if held.filled_by is None or held.layout.partial or sent_along(held.layout, target):
            return None
        made = filled(held.filled_by, self.fresh(self.local_type(held.whole, target)))
        assert made is not None
        self.ops.append(replace(made, site=replace(made.site, task=site.task)))
        return made.outputs[0]

    def _at_the_root(self, held: Held, target: Layout, site: Site) -> Value | None:
        """A rearrangement of split pieces is gathered before it: a weight is gathered once for
        all its views, keys and values before they are repeated for every head. Rows are sent to
        experts once for all their views."""
        op = held.moved_by
        sent = sent_along(held.layout, target)
        gathers = set(held.layout.split_axes) - set(target.split_axes)
        if op is None or held.layout.partial or not (gathers or sent):
            return None
        if sent and not row(op).ragged:
            return None
        if not row(op).view and self._least_bytes(op) >= held.whole.size_bytes:
            return None
        formula = row(op).formula(op)
        split = split_of(formula.outputs[0], target, formula.sizes)
        if split is None or formula.whole.intersection(split):
            return None
        (source,) = op.inputs
        dims = layout_of(formula.inputs[0], split, formula.sizes)
        root = self.get(source, Layout(dims), site)
        mapped = replace(op, args=(root, *op.args[1:]), outputs=())
        out = self.fresh(self.local_type(held.whole, target))
        shaped = row(op).local(mapped, split, (out.type,))
        here = replace(op.site, task=site.task, phase=site.phase)
        self.ops.append(replace(op, name=shaped.name, args=shaped.args, outputs=(out,), site=here))
        return out

    def _least_bytes(self, op: Op) -> int:
        """The size of the smallest value that the operand of `op` is a rearrangement of."""
        held = self.held[op.inputs[0].id]
        earlier = held.whole.size_bytes
        return earlier if held.moved_by is None else min(earlier, self._least_bytes(held.moved_by))
