"""Rows that go to the chips of their experts, and come back.

A chip has sorted the rows of its own tokens by expert, so those for each other chip lie together.
The chips tell each other how many rows they have for every expert, exchange the rows, and each puts
what has come in the order of its experts. The way back is the same in reverse. Nothing is padded
or dropped, however uneven the routing.

Chips that split experts but have the same tokens need not ask: each takes the stretch of the sorted
rows that belongs to its experts, and gives zeros for the others, so that the chips' rows add up.
"""

from dataclasses import dataclass

from supernode.ir import Arg, Site, TensorType, Value
from supernode.partition.moves import Writer, move
from supernode.plan import Layout, Mesh, by_token, cut, cut_axis


def experts_cut(axis: str, experts: int, mesh: Mesh) -> str:
    """How `axis` cuts the dim of so many experts."""
    return cut(axis, units=experts if experts % mesh.axis_size(axis) else 0)


def sent_along(source: Layout, target: Layout) -> tuple[str, int] | None:
    """The axis and dim along which rows must go to their experts, or back; None: they stay."""
    for dim, (have, want) in enumerate(zip(source.dims, target.dims, strict=True)):
        for old, new in zip(have, want, strict=False):
            if old != new and by_token(old) == by_token(new):
                return cut_axis(old), dim
        if len(want) > len(have) and (taken := taken_along(want)):
            return taken, dim
    return None


def taken_along(cuts: tuple[str, ...]) -> str | None:
    """The axis along which chips with the same tokens have each the rows of its own experts."""
    last = cuts[-1] if cuts else ""
    return cut_axis(last) if last and by_token(last) != last else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """`peers` [2, chips]: rows to and from each chip; `ends` of the groups of the own experts;
    `order` [rows] sorts by expert what came from chip after chip, `places` is its inverse."""

    peers: Value
    ends: Value
    order: Value
    places: Value


class Experts:
    """The exchanges of one block; what chips tell each other is asked once for each sort."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._routes: dict[int, _Route] = {}
        self._ends: dict[int, Value] = {}

    def ends(self, own: Value, axis: str, rows: int, site: Site) -> Value:
        """Where the groups of the experts of this chip end, among `rows` rows if routing is
        balanced; `own` says it for the rows of its tokens and all experts."""
        return self._route(own, axis, rows, site).ends

    def send(self, local: Value, dim: int, own: Value, axis: str, back: bool, site: Site) -> Value:
        """The rows `local` (along `dim`) of the tokens of this chip, at the chips of their experts;
        or `back` from there."""
        shape = local.tensor.shape
        route = self._route(own, axis, shape[dim], site)
        first = self._turned(local, dim, site)
        if back:
            first = self._picked(first, route.places, site)
        args: tuple[Arg, ...] = ((first,), axis, route.peers, back)
        there = self._emit("fabric.all_to_all_rows", args, first.tensor, site)
        if not back:
            there = self._picked(there, route.order, site)
        return self._turned(there, dim, site)

    def take(self, local: Value, dim: int, ends: Value, axis: str, count: int, site: Site) -> Value:
        """Of rows that all chips of an axis have, those of the experts of this chip, `count` of
        them if routing is balanced; `ends` says where the groups of all experts end."""
        first = self._turned(local, dim, site)
        type_ = TensorType(first.tensor.dtype, (count, *first.tensor.shape[1:]))
        args: tuple[Arg, ...] = (first, ends, *self._own(ends, axis))
        return self._turned(self._emit("local.own_rows", args, type_, site), dim, site)

    def own_ends(self, ends: Value, axis: str, site: Site) -> Value:
        """Where the groups of the experts of this chip end among the rows it has taken."""
        if ends.id not in self._ends:
            experts, cuts = self._own(ends, axis)
            type_ = TensorType(ends.tensor.dtype, (experts,))
            args: tuple[Arg, ...] = (ends, experts, cuts)
            self._ends[ends.id] = self._emit("local.own_ends", args, type_, site)
        return self._ends[ends.id]

    def place(self, local: Value, dim: int, ends: Value, axis: str, rows: int, site: Site) -> Value:
        """All `rows`, of which those are zeros that belong to other chips' experts."""
        first = self._turned(local, dim, site)
        type_ = TensorType(first.tensor.dtype, (rows, *first.tensor.shape[1:]))
        args: tuple[Arg, ...] = (first, ends, rows, *self._own(ends, axis))
        return self._turned(self._emit("local.placed_rows", args, type_, site), dim, site)

    def _own(self, ends: Value, axis: str) -> tuple[int, tuple[str, ...]]:
        """How many of the experts this chip has, and how `axis` cuts them."""
        mesh, (experts,) = self._writer.mesh, ends.tensor.shape
        _, count = mesh.share(axis, experts, self._writer.at)
        return count, (experts_cut(axis, experts, mesh),)

    def _route(self, own: Value, axis: str, rows: int, site: Site) -> _Route:
        if own.id not in self._routes:
            chips, type_ = self._writer.mesh.axis_size(axis), own.tensor
            index, peers = TensorType("int64", (rows,)), TensorType("int64", (2, chips))
            counts = self._emit("local.group_sizes", (own,), type_, site)
            theirs = self._told(counts, axis, site)
            mine = TensorType(type_.dtype, theirs.tensor.shape[1:])
            order = self._emit("local.expert_order", (theirs,), index, site)
            self._routes[own.id] = _Route(
                peers=self._emit("local.peer_rows", (counts, theirs), peers, site),
                ends=self._emit("local.group_ends", (theirs,), mine, site),
                order=order,
                places=self._emit("local.inverse_permutation", (order,), index, site),
            )
        return self._routes[own.id]

    def _told(self, counts: Value, axis: str, site: Site) -> Value:
        """The rows of each chip for each expert of this one, from those of this one for all."""
        chips, (experts,) = self._writer.mesh.axis_size(axis), counts.tensor.shape
        row = TensorType(counts.tensor.dtype, (1, experts))
        whole = TensorType(counts.tensor.dtype, (chips, experts))
        mine = self._emit("aten.unsqueeze", (counts, 0), row, site)
        by_chip = Layout(((axis,), ()))
        by_own = Layout(((), (experts_cut(axis, experts, self._writer.mesh),)))
        return move(self._writer, mine, whole, by_chip, by_own, site)

    def _picked(self, x: Value, index: Value, site: Site) -> Value:
        return self._emit("aten.index_select", (x, 0, index), x.tensor, site)

    def _turned(self, x: Value, dim: int, site: Site) -> Value:
        if dim == 0:
            return x
        shape = list(x.tensor.shape)
        shape[0], shape[dim] = shape[dim], shape[0]
        turned = TensorType(x.tensor.dtype, tuple(shape))
        return self._emit("aten.transpose.int", (x, 0, dim), turned, site)

    def _emit(self, name: str, args: tuple[Arg, ...], type_: TensorType, site: Site) -> Value:
        return self._writer.emit(name, args, type_, site)
