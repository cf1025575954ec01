"""Parts of several values that are only added up: first the values on each chip, then their parts.

Where a value is read by query, key and value, its gradient is a sum of three, each a partial sum
over the chips that split heads. If a residual's gradient, which is no partial sum, stands before
them, each is added up over the chips before it meets the next: three reductions, where one of the
sum gives the same.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from supernode.ir import Arg, Block, NewValues, Op, Value, renamed
from supernode.partition.merge import REDUCTIONS

ADD = "aten.add.Tensor"
Alike = tuple[str, tuple[Arg, ...], object]
"""Reductions that are alike may be one of the sum of their operands: what they are called, what
follows their operands, and their type."""


def sums_first(block: Block, time: Collection[str]) -> Block:
    """`block` with one reduction for each sum of several alike; those over axes of `time` stay."""
    places = _Finder(block, time).groups()
    return _Writer(block, places).write() if places else block


@dataclass(frozen=True, slots=True)
class _Place:
    """A reduction among those of one sum; the last of them is that of all."""

    group: int
    last: bool


class _Finder:
    """Which reductions of a block only meet others in sums."""

    def __init__(self, block: Block, time: Collection[str]) -> None:
        reads = [value.id for op in block.ops for value in op.inputs]
        counts = Counter([*reads, *(value.id for value in block.outputs)])
        self._once = {value for value, count in counts.items() if count == 1}
        self._time = time
        self._reduction = {op.outputs[0].id: op for op in block.ops if self._is_reduction(op)}
        self._sums = [op for op in block.ops if _is_sum(op)] if self._reduction else []

    def _is_reduction(self, op: Op) -> bool:
        return (
            op.name in REDUCTIONS
            and len(op.inputs) == 1
            and op.args[-1] == "sum"
            and op.args[1] not in self._time
        )

    def groups(self) -> dict[int, _Place]:
        """By the result of a reduction."""
        inside: dict[int, dict[Alike, list[int]]] = {}
        for op in self._sums:
            found: dict[Alike, list[int]] = {}
            for value in op.inputs:
                if value.id not in self._once:
                    continue
                for alike, members in inside.pop(value.id, {}).items():
                    found.setdefault(alike, []).extend(members)
                reduction = self._reduction.get(value.id)
                if reduction is not None:
                    alike = (reduction.name, reduction.args[1:], value.type)
                    found.setdefault(alike, []).append(value.id)
            inside[op.outputs[0].id] = found
        together = [m for found in inside.values() for m in found.values() if len(m) > 1]
        order = {value: at for at, value in enumerate(self._reduction)}
        return {
            value: _Place(number, value == max(members, key=order.__getitem__))
            for number, members in enumerate(together)
            for value in members
        }


class _Writer:
    """Writes the block again. A sum whose terms all moved elsewhere stands for nothing, None."""

    def __init__(self, block: Block, places: dict[int, _Place]) -> None:
        self._block, self._places = block, places
        self._fresh = NewValues.of(block)
        self._ops: list[Op] = []
        self._so_far: dict[int, Value] = {}
        self._stands: dict[int, Value | None] = {}

    def write(self) -> Block:
        for op in self._block.ops:
            place = self._places.get(op.outputs[0].id) if op.outputs else None
            if place is not None:
                self._reduction(op, place)
            elif not any(value.id in self._stands for value in op.inputs):
                self._ops.append(op)
            elif _is_sum(op) and None in (now := [self._now(value) for value in op.inputs]):
                self._stands[op.outputs[0].id] = now[0] or now[1]
            else:
                self._ops.append(renamed(op, {v.id: self._there(v) for v in op.inputs}))
        outputs = tuple(map(self._there, self._block.outputs))
        return replace(self._block, ops=tuple(self._ops), outputs=outputs)

    def _reduction(self, op: Op, place: _Place) -> None:
        total = self._there(*op.inputs)
        before = self._so_far.get(place.group)
        if before is not None:
            out = self._fresh(total.type)
            self._ops.append(Op(name=ADD, args=(before, total), outputs=(out,), site=op.site))
            total = out
        self._so_far[place.group] = total
        if place.last:
            self._ops.append(replace(op, args=((total,), *op.args[1:])))
        else:
            self._stands[op.outputs[0].id] = None

    def _now(self, value: Value) -> Value | None:
        return self._stands.get(value.id, value)

    def _there(self, value: Value) -> Value:
        found = self._now(value)
        assert found is not None, f"{value} is part of a sum only"
        return found


def _is_sum(op: Op) -> bool:
    """Whether it adds two values of one type, neither of them scaled."""
    if op.name != ADD or len(op.args) != 2 or op.kwarg("alpha", 1) != 1:
        return False
    return [value.type for value in op.inputs] == [op.outputs[0].type] * 2
