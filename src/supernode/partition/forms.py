"""The forms of a block that ends in reductions over an axis of time.

With the first part it computes the head and hands out what is to be reduced; with those between it
adds to what there is so far; with the last part it finishes what follows the reductions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from supernode.ir import Block, NewValues, Op, TensorType, Value, renamed
from supernode.partition.levels import SCATTER, over, picks
from supernode.partition.parted import Parted, parted_in
from supernode.partition.running import combined, picked, rounded, wide

FOLLOWING = ("local.unpad", "aten._to_copy")
"""What may stand between a scatter and the sum of its results."""


def form_name(block: Block, axis: str, head: frozenset[int] | None, part: int, parts: int) -> str:
    """The name of the form for a part; equal names are equal forms."""
    labels = [str(part)] if any(picks(op, axis) for op in block.ops) else []
    if head is not None:
        labels.append("first" if part == 0 else "last" if part == parts - 1 else "next")
    return "@".join((block.name, *labels))


def reductions(block: Block, axis: str) -> list[Op]:
    """The reductions over the axis, in order: one running result each."""
    return [op for op in block.ops if over(op, axis)]


def early(block: Block, head: frozenset[int]) -> list[int]:
    """Which outputs of the block its head gives."""
    late = {v.id for at, op in enumerate(block.ops) if at not in head for v in op.outputs}
    return [i for i, value in enumerate(block.outputs) if value.id not in late]


def running_type(op: Op) -> TensorType:
    """The type of the running result of a reduction."""
    (part,) = op.inputs
    return wide(part.tensor) if op.args[2] == "sum" else part.tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a part calls. `halves` are set where it adds up what was scattered over chips: the
    second one adds, so that another block can run while the scatter is under way."""

    block: Block
    halves: Parted | None = None


def form_of(block: Block, axis: str, head: frozenset[int] | None, part: int, parts: int) -> Form:
    """The form for a part.

    But for the first it takes the running results as further inputs. But for the last it hands
    out, of the block's outputs, those of the head, and then the running results.
    """
    name = form_name(block, axis, head, part, parts)
    writer = _Form(block, axis, part, parts)
    if head is None:
        ops = tuple(map(writer.of_part, block.ops))
        return Form(block=replace(block, name=name, ops=ops))
    form = writer.write(name, head)
    return Form(block=form, halves=_halves(form, writer.added))


def _halves(form: Block, added: set[int]) -> Parted | None:
    """`form` and its sums, `added`, of what was scattered."""
    made = {value.id: op for op in form.ops for value in op.outputs}
    late: set[int] = set()
    early: list[Op] = []
    for op in form.ops:
        sums = op.outputs[0].id in added and any(is_scattered(v, made) for v in op.inputs)
        if sums or any(value.id in late for value in op.inputs):
            late |= {value.id for value in op.outputs}
        else:
            early.append(op)
    return parted_in(form, early, "sum") if late else None


def is_scattered(value: Value, made: Mapping[int, Op]) -> bool:
    """Whether a value is this chip's piece of a sum over chips, straight from its scatter."""
    op = made.get(value.id)
    while op is not None and op.name in FOLLOWING:
        op = made.get(op.inputs[0].id)
    return op is not None and op.name == SCATTER


class _Form:
    """Writes one form."""

    def __init__(self, block: Block, axis: str, part: int, parts: int) -> None:
        self.block, self.axis, self.part, self.parts = block, axis, part, parts
        self.last = part == parts - 1
        self.fresh = NewValues.of(block)
        self.ops: list[Op] = []
        self.reduced = reductions(block, axis)
        self.before: list[Value | None] = [
            self.fresh(running_type(op)) if part else None for op in self.reduced
        ]
        self.added: set[int] = set()
        """What is made by adding to a running result."""

    def of_part(self, op: Op) -> Op:
        """`op` as this part runs it."""
        return picked(op, self.part, self.parts, op.outputs[0]) if picks(op, self.axis) else op

    def write(self, name: str, head: frozenset[int]) -> Block:
        """The whole form. What is to be reduced is added as soon as it is there."""
        results: dict[int, Value] = {}
        self._add_what_is_there(results, {value.id for value in self.block.inputs})
        for at, op in enumerate(self.block.ops):
            if at in head:
                self.ops.append(self.of_part(op))
                self._add_what_is_there(results, {value.id for value in op.outputs})
        running = [results[i] for i in range(len(self.reduced))]
        if self.last:
            stands = self._finish(head, running)
            outputs = [stands.get(value.id, value) for value in self.block.outputs]
        else:
            outputs = [self.block.outputs[i] for i in early(self.block, head)] + running
        more = tuple(value for value in self.before if value is not None)
        return Block(
            name=name,
            inputs=(*self.block.inputs, *more),
            ops=tuple(self.ops),
            outputs=tuple(outputs),
        )

    def _add_what_is_there(self, results: dict[int, Value], made: set[int]) -> None:
        for i, op in enumerate(self.reduced):
            (part,) = op.inputs
            if part.id in made:
                kind = str(op.args[2])
                ops = combined(self.before[i], part, kind, op.site, self.fresh)
                self.ops += ops
                self.added |= {value.id for op in ops for value in op.outputs}
                results[i] = ops[-1].outputs[0] if ops else part

    def _finish(self, head: frozenset[int], running: list[Value]) -> dict[int, Value]:
        """Writes what follows the reductions; says which values a running result stands for."""
        totals = {op.outputs[0].id: total for op, total in zip(self.reduced, running, strict=True)}
        stands: dict[int, Value] = {}
        for at, op in enumerate(self.block.ops):
            out = op.outputs[0]
            if at in head:
                continue
            if out.id not in totals:
                mapping = {value.id: stands.get(value.id, value) for value in op.inputs}
                self.ops.append(renamed(op, mapping))
            elif totals[out.id].type == out.type:
                stands[out.id] = totals[out.id]
            else:
                self.ops.append(rounded(totals[out.id], out, op.site))
        return stands
