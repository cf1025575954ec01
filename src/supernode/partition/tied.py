"""Gradients of one weight from several chunks: added up where they are made, then sent once.

A weight that is used in two chunks has a gradient from each for every microbatch, and the sum of
both goes into the running sum. Here each chunk has a running sum of its own; with the last
microbatch they are added. What is sent is one gradient, not one for each microbatch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from supernode.ir import NewValues, Op, TensorType, Value
from supernode.partition.chunks import EVERYWHERE, Chunks
from supernode.partition.running import combined
from supernode.partition.unroll import Tag

ADD, SCATTER = "aten.add.Tensor", "fabric.reduce_scatter"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """A gradient of one chunk, and the reductions over chips on its way into the sum."""

    value: Value
    chunk: int
    way: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """A running sum: `adds[p]` is the op that adds part `p`; for the first one the op it comes
    from. `gone` are the ops that the sums by chunk replace."""

    adds: list[int]
    leaves: list[list[_Leaf]]
    gone: set[int]


def summed_by_chunk(chunks: Chunks) -> Chunks:
    """`chunks` with a running sum in each chunk that has a part in a gradient."""
    return _Sums(chunks).written()


class _Sums:
    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self.ops, self.tags, self.of = chunks.local.main.ops, chunks.tags, chunks.of
        self.made = {value.id: at for at, op in enumerate(self.ops) for value in op.outputs}
        self.readers = Counter(value.id for op in self.ops for value in op.inputs)
        self.readers.update(value.id for value in chunks.local.main.outputs)
        self.new = NewValues.of(chunks.local.main)

    def written(self) -> Chunks:
        """The ops with each such sum written anew."""
        sums = [found for chain in self._chains() if (found := self._sum(chain)) is not None]
        gone = {at for each in sums for at in each.gone}
        added: dict[int, list[tuple[Op, Tag, int]]] = defaultdict(list)
        late: set[int] = set()
        for each in sums:
            self._write(each, added)
            late |= self._behind(each.adds[-1])
        items: list[tuple[Op, Tag, int]] = []
        for at, op in enumerate(self.ops):
            items += added.get(at, ())
            if at not in gone:
                tag = self.tags[at]._replace(part=None) if at in late else self.tags[at]
                items.append((op, tag, self.of[at]))
        local = self.chunks.local
        main = replace(local.main, ops=tuple(op for op, _, _ in items))
        return replace(
            self.chunks,
            local=replace(local, main=main),
            tags=[tag for _, tag, _ in items],
            of=[chunk for _, _, chunk in items],
        )

    def _chains(self) -> Iterator[list[int]]:
        """The ops of each running sum from the second part on: they read what an earlier part
        gave."""
        chains: dict[int, list[int]] = defaultdict(list)
        for at, op in enumerate(self.ops):
            part = self.tags[at].part
            if op.name == ADD and part and len(op.inputs) == 2:
                maker = self.made.get(op.inputs[0].id)
                before = None if maker is None else self.tags[maker].part
                if before is not None and before == part - 1:
                    chains[self.tags[at].step].append(at)
        yield from chains.values()

    def _sum(self, chain: list[int]) -> _Sum | None:
        """What is added up, if it comes from several chunks."""
        first = self.ops[chain[0]].inputs[0]
        start = self.made[first.id]
        gone = set(chain)
        if self.tags[start].step == self.tags[chain[0]].step and self.ops[start].inputs:
            gone.add(start)  # the first part in the type of the sum
            first = self.ops[start].inputs[0]
        leaves = [
            self._leaves(source, gone)
            for source in (first, *(self.ops[at].inputs[1] for at in chain))
        ]
        kinds = [[(leaf.chunk, len(leaf.way)) for leaf in part] for part in leaves]
        several = len({leaf.chunk for leaf in leaves[0]} - {EVERYWHERE}) > 1
        if not several or any(kind != kinds[0] for kind in kinds):
            return None
        return _Sum(adds=[start, *chain], leaves=leaves, gone=gone)

    def _leaves(self, value: Value, gone: set[int], way: tuple[Op, ...] = ()) -> list[_Leaf]:
        """The gradients that a part is the sum of."""
        at = self.made[value.id]
        op = self.ops[at]
        only_here = self.readers[value.id] == 1 and self.tags[at].part is not None
        if only_here and op.name == ADD and len(op.inputs) == 2 and not op.kwargs:
            gone.add(at)
            return [leaf for each in op.inputs for leaf in self._leaves(each, gone, way)]
        if only_here and op.name == SCATTER and len(op.inputs) == 1:
            gone.add(at)
            return self._leaves(op.inputs[0], gone, (op, *way))
        return [_Leaf(value=value, chunk=self.of[at], way=way)]

    def _write(self, found: _Sum, added: dict[int, list[tuple[Op, Tag, int]]]) -> None:
        """The sums by chunk, each part where it was added, and their sum in the end."""
        running: dict[int, Value] = {}
        last = found.adds[-1]
        for part, (at, leaves) in enumerate(zip(found.adds, found.leaves, strict=True)):
            tag = self.tags[last]._replace(part=part)
            for chunk in sorted({leaf.chunk for leaf in leaves}):
                own = [leaf for leaf in leaves if leaf.chunk == chunk]
                for leaf in own:
                    ops, value = self._arrived(leaf)
                    ops += combined(running.get(chunk), value, "sum", self.ops[last].site, self.new)
                    running[chunk] = ops[-1].outputs[0] if ops else value
                    added[at] += [(op, tag, chunk) for op in ops]
        final = self.tags[last]._replace(part=None)
        home = self.of[last]
        *others, end = sorted(running, key=lambda chunk: (chunk == home, chunk))
        total = running[others[0]]
        for i, chunk in enumerate((*others[1:], end)):
            out = self.new(total.type)
            if i == len(others) - 1:
                (out,) = self.ops[last].outputs
            op = replace(self.ops[last], args=(total, running[chunk]), outputs=(out,))
            added[last].append((op, final, home))
            total = out

    def _arrived(self, leaf: _Leaf) -> tuple[list[Op], Value]:
        """A gradient with its reductions over chips."""
        ops: list[Op] = []
        value = leaf.value
        for op in leaf.way:
            shape = op.outputs[0].tensor.shape
            out = self.new(TensorType(value.tensor.dtype, shape))
            ops.append(replace(op, args=((value,), *op.args[1:]), outputs=(out,)))
            value = out
        return ops, value

    def _behind(self, last: int) -> set[int]:
        """What follows the sum in its own step, as its rounding does."""
        (out,) = self.ops[last].outputs
        return {
            at
            for at in range(last + 1, len(self.ops))
            if self.tags[at].step == self.tags[last].step and out in self.ops[at].inputs
        }
