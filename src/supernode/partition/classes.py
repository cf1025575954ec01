"""Classes of dims: which dims of which values are the same thing, by the formulas of the ops.

The residual stream's last dim is one class through all layers, an MLP's hidden units another, the
batch a third. A layout assigns classes to mesh axes, so no module or op needs to be named.
"""

import math
from collections.abc import Iterator

from supernode.ir import CALL, Block, HostType, Program, Value
from supernode.ops import Formula, row

Place = tuple[str, int, int]
"""Block name, value id, dim."""


class Classes:
    """Union-find over the dims of every value of a Program."""

    def __init__(self, program: Program) -> None:
        self._parent: dict[Place, Place] = {}
        self._divisor: dict[Place, int] = {}
        self._formulas: dict[tuple[str, int], Formula] = {}
        blocks = {block.name: block for block in program.blocks}
        for block in program.all_blocks():
            self._join_block(block, blocks)
        for output, source in zip(program.main.outputs, program.updates, strict=True):
            if source is not None:
                self._join_values("main", output, "main", program.main.inputs[source])

    def of(self, block: str, value: Value, dim: int) -> Place:
        """The class of a dim, as one representative place."""
        return self._root((block, value.id, dim))

    def divisor(self, place: Place) -> int:
        """The greatest number of equal parts every dim of this class can be cut in."""
        return self._divisor.get(self._root(place), 0)

    def formula(self, block: str, position: int) -> Formula:
        """The Formula of the op at `position` of `block`."""
        return self._formulas[block, position]

    def _join_block(self, block: Block, blocks: dict[str, Block]) -> None:
        for position, op in enumerate(block.ops):
            if op.name == CALL:
                callee = blocks[op.block]
                pairs = (*zip(op.inputs, callee.inputs, strict=True),)
                for actual, formal in (*pairs, *zip(op.outputs, callee.outputs, strict=True)):
                    self._join_values(block.name, actual, callee.name, formal)
            elif not is_host(op.name):
                formula = row(op).formula(op)
                self._formulas[block.name, position] = formula
                self._join_factors(block.name, formula, (*op.inputs, *op.outputs))

    def _join_factors(self, block: str, formula: Formula, values: tuple[Value, ...]) -> None:
        first: dict[str, Place] = {}
        for value, dims in zip(values, formula.inputs + formula.outputs, strict=True):
            for i, dim in enumerate(dims):
                if not dim:
                    continue
                place = (block, value.id, i)
                self._limit(place, formula.sizes[dim[0]])
                self._join(first.setdefault(dim[0], place), place)

    def _join_values(self, block: str, a: Value, other: str, b: Value) -> None:
        for dim in range(_rank(a)):
            self._join((block, a.id, dim), (other, b.id, dim))

    def _limit(self, place: Place, size: int) -> None:
        root = self._root(place)
        self._divisor[root] = math.gcd(self._divisor.get(root, 0), size)

    def _root(self, place: Place) -> Place:
        path: list[Place] = []
        while (parent := self._parent.get(place, place)) != place:
            path.append(place)
            place = parent
        for seen in path:
            self._parent[seen] = place
        return place

    def _join(self, a: Place, b: Place) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        self._parent[b] = a
        divisor = math.gcd(self._divisor.get(a, 0), self._divisor.pop(b, 0))
        if divisor:
            self._divisor[a] = divisor


def is_host(name: str) -> bool:
    """Whether an op works on host numbers, or reads one from a tensor."""
    return name.startswith("host.") or name == "aten._local_scalar_dense"


def contractions(
    program: Program, classes: Classes
) -> Iterator[tuple[tuple[Place, ...], int, int]]:
    """Per op that sums a dim away: the classes summed, the output's size, how often it runs."""
    counts = program.counts()
    for block in program.all_blocks():
        for position, op in enumerate(block.ops):
            if op.name == CALL or is_host(op.name):
                continue
            formula = classes.formula(block.name, position)
            kept = {factor for dims in formula.outputs for dim in dims for factor in dim}
            summed = tuple(
                classes.of(block.name, value, i)
                for value, dims in zip(op.inputs, formula.inputs, strict=True)
                for i, dim in enumerate(dims)
                if dim and dim[0] not in kept
            )
            if summed:
                size = op.outputs[0].type.size_bytes
                yield summed, size, counts.get(block.name, 1)


def _rank(value: Value) -> int:
    return 0 if isinstance(value.type, HostType) else len(value.type.shape)
