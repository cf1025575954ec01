"""Uses: in a line of ops, which one makes each value, and which read it. Views are seen through."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from supernode.ir import Op, Value
from supernode.ops import is_view

OUTSIDE = -1
"""The position of what reads a value after all of the ops."""
_UNREAD = frozenset((OUTSIDE,))


@dataclass(frozen=True, slots=True)
class Uses:
    """`making` has the position of the op that makes each value; what views show is made by what
    makes what they view. `readers` are the positions that read it, itself or through views."""

    ops: Sequence[Op]
    making: Mapping[int, int]
    readers: Mapping[int, set[int]]

    @staticmethod
    def of(ops: Sequence[Op], kept: Iterable[Value]) -> "Uses":
        """Those in `ops`, after which the `kept` values are read."""
        return Uses(ops, _making(ops), _readers(ops, kept))

    def stays_in(self, value: Value, places: Set[int]) -> bool:
        """Whether it is read, and by ops at these places alone."""
        return self.readers.get(value.id, _UNREAD) <= places


def _making(ops: Sequence[Op]) -> dict[int, int]:
    found: dict[int, int] = {}
    for at, op in enumerate(ops):
        seen = found.get(op.inputs[0].id) if is_view(op) and op.inputs else at
        if seen is not None:
            found |= {value.id: seen for value in op.outputs}
    return found


def _readers(ops: Sequence[Op], kept: Iterable[Value]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {value.id: {OUTSIDE} for value in kept}
    for at in range(len(ops) - 1, -1, -1):
        op = ops[at]
        through = set[int]().union(*(found.get(value.id, set()) for value in op.outputs))
        for value in op.inputs:
            found.setdefault(value.id, set()).update(through if is_view(op) else {at})
    return found
