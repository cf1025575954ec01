"""What crosses from one stage of a pipeline to another of a different layout, chip by chip."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

from supernode.ir import SEND, HostType, Op, TensorType, Type
from supernode.plan.cut import Cuts
from supernode.plan.layout import Layout
from supernode.plan.mesh import Mesh

Box = tuple[slice, ...]
Dims = tuple[Cuts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A part of a value that chip `source` sends chip `target`: where it is in the piece of each,
    and its shape; `piece` is that of all of what the target gets."""

    source: int
    target: int
    sent: Box
    received: Box
    shape: tuple[int, ...]
    piece: tuple[int, ...]

    def size_bytes(self, of: Type) -> int:
        """The bytes of the part, of a value whose elements are those of a type."""
        one = of if isinstance(of, HostType) else TensorType(of.dtype, self.shape)
        return one.size_bytes


def crossings_of(op: Op, mesh: Mesh, stage: int) -> tuple[Crossing, ...]:
    """All parts of what `op`, a `fabric.send` or `fabric.receive` of chips of `stage`, moves."""
    _, _, other, _, theirs, own, shape = op.args
    assert isinstance(other, int)
    ends = (stage, other) if op.name == SEND else (other, stage)
    return _crossings(mesh.stages[ends[0]], mesh.stages[ends[1]], theirs, own, shape)  # pyright: ignore[reportArgumentType]


@cache
def _crossings(
    source: Mesh, target: Mesh, sent: Dims, received: Dims, shape: tuple[int, ...]
) -> tuple[Crossing, ...]:
    """Each chip of `target` gets each element once; of the chips of `source` that hold the same,
    each serves its share of those that want it."""
    holders: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for rank in _ranks(source):
        holders[_ends(Layout(sent), shape, source, rank)].append(rank)
    found: list[Crossing] = []
    for turn, rank in enumerate(_ranks(target)):
        wanted = _ends(Layout(received), shape, target, rank)
        for held, ranks in holders.items():
            both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(held, wanted, strict=True)]
            if all(start < stop for start, stop in both):
                found.append(
                    Crossing(
                        source=ranks[turn % len(ranks)],
                        target=rank,
                        sent=_within(both, held),
                        received=_within(both, wanted),
                        shape=tuple(stop - start for start, stop in both),
                        piece=tuple(stop - start for start, stop in wanted),
                    )
                )
    return tuple(found)


def _ranks(mesh: Mesh) -> range:
    return range(mesh.first, mesh.first + mesh.size)


def _ends(
    layout: Layout, shape: tuple[int, ...], mesh: Mesh, rank: int
) -> tuple[tuple[int, int], ...]:
    return tuple((each.start, each.stop) for each in layout.slices(shape, mesh, rank))


def _within(both: list[tuple[int, int]], piece: tuple[tuple[int, int], ...]) -> Box:
    pairs = zip(both, piece, strict=True)
    return tuple(slice(start - first, stop - first) for (start, stop), (first, _) in pairs)
