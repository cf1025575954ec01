"""Reductions with a user's combine function, of one tile or of several together."""

from ..passes.steps import ReduceRoot
from ..tile.ops import Region, words
from ..tile.types import Elem
from .combine import combine
from .context import Context
from .evaluate import Chunk, Index
from .lanes import Lanes
from .writer import vector


def identity(region: Region) -> int | float | None:
    """The value that leaves the other unchanged, for a combine function of one known op."""
    block = region.block
    if len(block.args) != 2 or len(block.ops) != 2:
        return None
    op = block.ops[0]
    if {*op.operands} != {*block.args} or op.name not in _KNOWN:
        return None
    elem: Elem = op.result.type.elem
    if elem.is_float:
        return {"add": -0.0, "fmaxnum": float("-inf"), "fminnum": float("inf")}.get(op.name)
    if op.name in ("add", "or", "xor", "umax"):
        return 0
    if op.name == "mul":
        return 1
    if elem.bits == 1:
        return None
    low, high = -(1 << (elem.bits - 1)), (1 << (elem.bits - 1)) - 1
    return {"and": -1, "umin": -1, "smax": low, "smin": high}.get(op.name)


_KNOWN = words("add or xor umax mul and umin smax smin fmaxnum fminnum")


class Reduction:
    """One `tt.reduce` inside a nest: accumulators that live as long as the loop over its axis."""

    def __init__(self, c: Context, root: ReduceRoot, count: int, lane_dim: int) -> None:
        self.c, self.root, self.count = c, root, count
        self.axis: int = root.op.attrs["axis"]
        self.along_lanes = self.axis == lane_dim
        self.elems = [value.type.elem for value in root.inputs]
        self.region = root.op.regions[0]
        size = root.inputs[0].type.dims[self.axis]
        self.turns = size // count if self.along_lanes else size
        self.places = [c.w.alloca(_held(elem, count)) for elem in self.elems]
        self.identity = identity(self.region) if len(self.elems) == 1 else None

    def begin(self) -> None:
        """Before the loop over the axis."""
        if self.turns > 1 and self.identity is not None:
            w, elem = self.c.w, self.elems[0]
            start = w.constant(self.identity, elem, self.count)
            w.store(elem, start, self.places[0], self.count)

    def step(self, chunk: Chunk, index: Index) -> None:
        """Folds in the lanes at `index`."""
        w = self.c.w
        values = [chunk.vector(value, index) for value in self.root.inputs]
        if self.turns > 1:
            held = [
                w.load(elem, place, self.count)
                for elem, place in zip(self.elems, self.places, strict=True)
            ]
            folded = combine(self.c, self.region, held + values, self.count)
            values = folded if self.identity is not None else self._first(index, values, folded)
        for elem, place, value in zip(self.elems, self.places, values, strict=True):
            w.store(elem, value, place, self.count)

    def _first(self, index: Index, values: list[str], folded: list[str]) -> list[str]:
        """Where no identity is known, the first turn takes the values as they are."""
        w = self.c.w
        first = w.let(f"icmp eq i32 {index[self.axis][0]}, 0")
        return [
            w.let(
                f"select i1 {first}, {vector(elem, self.count)} {value},"
                f" {vector(elem, self.count)} {other}"
            )
            for elem, value, other in zip(self.elems, values, folded, strict=True)
        ]

    def finish(self, chunk: Chunk, index: Index) -> None:
        """After the loop over the axis: folds the lanes, if they ran along it, and writes."""
        w = self.c.w
        values = [
            w.load(elem, place, self.count)
            for elem, place in zip(self.elems, self.places, strict=True)
        ]
        if self.along_lanes:
            values = fold_lanes(self.c, self.region, values, self.elems, self.count)
        rest = index[: self.axis] + index[self.axis + 1 :]
        for buffer, value, elem in zip(self.root.buffers, values, self.elems, strict=True):
            lanes = Lanes(value, elem, 0 if self.along_lanes else None)
            chunk.write(buffer, rest, lanes)


def _held(elem: Elem, count: int) -> str:
    return f"<{count} x {elem.memory}>"


def fold_lanes(
    c: Context, region: Region, values: list[str], elems: list[Elem], count: int
) -> list[str]:
    """Folds all lanes into one, halving their number each time; gives scalars."""
    w = c.w
    while count > 1:
        half = count // 2
        halves = [
            [
                w.shuffle(elem, value, "poison", count, list(range(start, start + half)))
                for elem, value in zip(elems, values, strict=True)
            ]
            for start in (0, half)
        ]
        values = combine(c, region, halves[0] + halves[1], half)
        count = half
    return [w.lane(elem, value, 1, 0) for elem, value in zip(elems, values, strict=True)]
