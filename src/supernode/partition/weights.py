"""Backward in two parts, for schedules that do them apart.

What other chunks wait for comes first: the gradients of what they handed on. What is left gives
the gradients of weights alone; only the optimizer waits for it, so it can fill a stage's idle time.

**Source:** Qi et al., "Zero Bubble Pipeline Parallelism", ICLR 2024, section 2.
"""

from dataclasses import replace

from supernode.ir import CALL, NewValues, Op, Value, called
from supernode.partition.chunks import Chunks
from supernode.partition.parted import Parted, parted, two_calls


def apart(chunks: Chunks, level: int) -> Chunks:
    """`chunks` with the ops named that give gradients of weights only, of the tasks of `level`.

    A call that gives both is written as two; the second one reads what it needs of the first.
    """
    return _Apart(chunks, level).written()


class _Apart:
    def __init__(self, chunks: Chunks, level: int) -> None:
        self.chunks, self.level = chunks, level
        self.ops = chunks.local.main.ops
        self.made = {value.id: at for at, op in enumerate(self.ops) for value in op.outputs}
        self.blocks = {block.name: block for block in chunks.local.blocks}
        self.known: dict[tuple[str, tuple[int, ...]], Parted | None] = {}
        self.urgent: set[int] = set()
        """The values that another chunk's backward waits for."""

    def _task(self, at: int) -> tuple[int, int] | None:
        """The chunk and microbatch of an op of backward."""
        op, tag, chunk = self.ops[at], self.chunks.tags[at], self.chunks.of[at]
        inside = op.site.phase != "forward" and tag.level == self.level
        return (chunk, tag.part) if inside and tag.part is not None and chunk >= 0 else None

    def written(self) -> Chunks:
        ops: list[Op] = []
        origin: list[int] = []
        late: list[bool] = []
        new = NewValues.of(self.chunks.local.main)
        for at in range(len(self.ops) - 1, -1, -1):
            first, second = self._halves(at, new)
            for op in (second, first):  # backwards
                if op is not None:
                    ops.append(op)
                    origin.append(at)
                    late.append(op is second)
        local = self.chunks.local
        main = replace(local.main, ops=tuple(ops[::-1]))
        return replace(
            self.chunks,
            local=replace(local, main=main, blocks=called(self.blocks.values(), ops)),
            tags=[self.chunks.tags[at] for at in reversed(origin)],
            of=[self.chunks.of[at] for at in reversed(origin)],
            weights=frozenset(at for at, each in enumerate(reversed(late)) if each),
        )

    def _halves(self, at: int, new: NewValues) -> tuple[Op | None, Op | None]:
        """An op, or a call as two, as what others wait for and what nobody does; the ops behind it
        have been seen."""
        op, task = self.ops[at], self._task(at)
        if task is None:
            return op, None
        wanted = tuple(i for i, value in enumerate(op.outputs) if value.id in self.urgent)
        first: Op | None = op
        second: Op | None = None
        if not wanted:
            first, second = None, op
        elif op.name == CALL and (halves := self._parted(op.block, wanted)):
            first, second = two_calls(op, halves, new)
        if first is not None:
            self.urgent |= {value.id for value in first.inputs}
        if second is not None:
            self.urgent |= {v.id for v in second.inputs if self._from_another(v, task)}
        return first, second

    def _from_another(self, value: Value, task: tuple[int, int]) -> bool:
        """Whether it comes from another chunk, which has to send it."""
        made = self.made.get(value.id)
        other = None if made is None else self._task(made)
        return other is not None and other[0] != task[0]

    def _parted(self, name: str, wanted: tuple[int, ...]) -> Parted | None:
        key = name, wanted
        if key not in self.known:
            self.known[key] = found = parted(self.blocks[name], wanted)
            self.blocks |= {} if found is None else {b.name: b for b in found.blocks}
        return self.known[key]
