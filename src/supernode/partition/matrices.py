"""Which side of each weight matrix a tensor-parallel axis splits."""

from collections import defaultdict
from itertools import product

from supernode.ir import Program, Value
from supernode.partition.classes import Classes, Part, contractions, expert_classes, read_whole


def inner_classes(program: Program, classes: Classes) -> list[Part]:
    """One dim class of each weight matrix, also of those of experts: the side of the two that sums
    fewer bytes.

    Weight matrices join classes in pairs (residual width with hidden units, with heads, with the
    vocabulary). Of the two sides of each connected piece, splitting one leaves partial sums after
    the matmuls that contract it; the side that sums fewer bytes for each byte of the matrices that
    it splits is taken. What would be gathered right away, and what would split the other side of a
    larger matrix than its own, is no part of a side: splitting it sends more, not less.
    """
    graph = _Matrices(program, classes)
    # A single layer without a loss: nothing sums its outputs.
    chosen: list[Part] = [] if graph.neighbours else graph.lone
    seen: set[Part] = set()
    for start in graph.neighbours:
        if start not in seen:
            sides = _two_sides(start, graph.neighbours, seen)
            chosen += graph.cheaper(sides)
    return chosen


class _Matrices:
    """The weight matrices as edges between the classes of their sides."""

    def __init__(self, program: Program, classes: Classes) -> None:
        self._classes = classes
        self._whole, self._stretched = read_whole(program, classes)
        self.neighbours: dict[Part, dict[Part, int]] = defaultdict(dict)
        self.lone: list[Part] = []
        self._summed: dict[Part, int] = defaultdict(int)
        for places, size, count in contractions(program, classes):
            for each in dict.fromkeys(each for part in places for each in self._in(part)):
                self._summed[each] += size * count
        experts = expert_classes(classes)
        for port, value in zip(program.inputs, program.main.inputs, strict=True):
            if port.role != "param":
                continue
            dims = [*range(len(value.tensor.shape))]
            # Each expert has a matrix of its own.
            if len(dims) == 3 and classes.of("main", value, 0) in experts:
                dims = dims[1:]
            if len(dims) == 2:
                self._add(value, dims)

    def _add(self, value: Value, dims: list[int]) -> None:
        for a, b in product(*(self._side(value, dim) for dim in dims)):
            # A table that is only looked up (a bias by relative position) is no weight matrix.
            if a != b and a in self._summed and b in self._summed:
                nbytes = self.neighbours[a].get(b, 0) + value.type.size_bytes
                self.neighbours[a][b] = self.neighbours[b][a] = nbytes
            elif a != b and (a in self._summed or b in self._summed):
                self.lone.append(min((a, b), key=lambda place: self._summed[place]))

    def _side(self, value: Value, dim: int) -> tuple[Part, ...]:
        """The classes to split for a dim to be split: what no op reads whole, if there is such."""
        parts = self._classes.parts("main", value, dim)
        ways = (self._in(part) for part in parts.values() if part not in self._whole)
        return next((way for way in ways if any(map(self._is_split, way))), (parts[1],))

    def _in(self, part: Part) -> tuple[Part, ...]:
        found = self._classes.stretches(part, self._is_split) or ((1, part),)
        return tuple(dict.fromkeys(each for _, each in found))

    def _is_split(self, part: Part) -> bool:
        return part not in self._whole and part not in self._stretched

    def cheaper(self, sides: tuple[list[Part], list[Part]]) -> list[Part]:
        """The side to split."""
        found = [side for side in map(self._apart, sides) if side] or [*sides]
        return min(found, key=lambda side: self._sent(side) / self._kept(side))

    def _sent(self, side: list[Part]) -> int:
        return sum(self._summed[part] for part in side)

    def _kept(self, side: list[Part]) -> int:
        """The bytes of all matrices it splits."""
        return sum(sum(self.neighbours[part].values()) for part in side)

    def _apart(self, side: list[Part]) -> list[Part]:
        """Those of a side that no op reads whole, and of two that share a matrix the one that
        splits more."""
        taken: set[Part] = set()
        for part in sorted(filter(self._is_split, side), key=lambda part: -self._kept([part])):
            if not taken.intersection(self.neighbours[part]):
                taken.add(part)
        return [part for part in side if part in taken]


def _two_sides(
    start: Part, neighbours: dict[Part, dict[Part, int]], seen: set[Part]
) -> tuple[list[Part], list[Part]]:
    sides: tuple[list[Part], list[Part]] = ([], [])
    queue = [(start, 0)]
    while queue:
        place, side = queue.pop(0)
        if place in seen:
            continue
        seen.add(place)
        sides[side].append(place)
        queue += [(other, 1 - side) for other in neighbours[place]]
    return sides
