"""Blocks joined and trimmed: two calls as one, and no output, op or input that nobody reads."""

from collections.abc import Collection
from dataclasses import replace

from supernode.ir import CALL, Block, NewValues, Op, Program, Value, copied, renamed

Key = tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Fuser:
    """Joins pairs of calls; pairs that are wired alike share one block."""

    def __init__(self, blocks: dict[str, Block]) -> None:
        self._blocks = blocks
        self.joined: dict[Key, Block] = {}

    def fused(self, first: Op, second: Op, also: tuple[int, ...] = ()) -> Op:
        """One call for both, whose results are those of `second` and then, of those of `first`,
        the ones at the places `also`."""
        given = {value.id: -1 - i for i, value in enumerate(first.outputs)}
        outer: dict[int, int] = {}
        for value in (*first.inputs, *second.inputs):
            if value.id not in given:
                outer.setdefault(value.id, len(outer))
        places = outer | given
        key: Key = (
            first.block,
            second.block,
            tuple(places[value.id] for value in first.inputs),
            tuple(places[value.id] for value in second.inputs),
            also,
        )
        if key not in self.joined:
            self.joined[key] = self._join(key, len(outer))
            self._blocks[self.joined[key].name] = self.joined[key]
        values = {value.id: value for value in (*first.inputs, *second.inputs)}
        args = tuple(values[id_] for id_ in outer)
        outputs = (*second.outputs, *(first.outputs[i] for i in also))
        return replace(second, args=args, outputs=outputs, block=self.joined[key].name)

    def _join(self, key: Key, inputs: int) -> Block:
        first, second = self._blocks[key[0]], self._blocks[key[1]]
        outer: list[Value | None] = [None] * inputs
        ops: list[Op] = []
        results: list[Value] = []
        more: list[Value] = []
        new = NewValues(inputs)
        for block, places in ((first, key[2]), (second, key[3])):
            given: list[Value] = []
            for formal, place in zip(block.inputs, places, strict=True):
                if place < 0:
                    given.append(results[-1 - place])
                else:
                    value = outer[place] or Value(place, formal.type)
                    outer[place] = value
                    given.append(value)
            added, results = copied(block, tuple(given), new)
            ops += added
            if block is first:
                more = [results[i] for i in key[4]]
        number = sum(known[1] == key[1] for known in self.joined)
        return Block(
            name=f"{second.name}_again{number + 1 if number else ''}",
            inputs=tuple(value for value in outer if value is not None),
            ops=tuple(ops),
            outputs=(*results, *more),
        )


def written_out(program: Program, calls: Collection[int]) -> tuple[Block, list[int]]:
    """Main with the ops of these calls in their place, and where each op of it was before."""
    main = program.main
    new = NewValues.of(main)
    stands: dict[int, Value] = {}
    ops: list[Op] = []
    origin: list[int] = []
    for at, op in enumerate(main.ops):
        now = renamed(op, {value.id: stands.get(value.id, value) for value in op.inputs})
        if at not in calls:
            ops.append(now)
            origin.append(at)
            continue
        inner, results = copied(program.block(op.block), now.inputs, new)
        ops += inner
        origin += [at] * len(inner)
        stands |= zip((value.id for value in op.outputs), results, strict=True)
    outputs = tuple(stands.get(value.id, value) for value in main.outputs)
    return replace(main, ops=tuple(ops), outputs=outputs), origin


def trimmed(program: Program) -> Program:
    """`program` without blocks nobody calls, outputs nobody reads, and what only these needed."""
    blocks = {block.name: block for block in program.blocks}
    read = {value.id for op in program.main.ops for value in op.inputs}
    read |= {value.id for value in program.main.outputs}
    kept_out: dict[str, set[int]] = {}
    for op in program.main.ops:
        if op.name == CALL:
            wanted = {i for i, value in enumerate(op.outputs) if value.id in read}
            kept_out.setdefault(op.block, set()).update(wanted)
    small = {name: _small(blocks[name], wanted) for name, wanted in kept_out.items()}
    ops: list[Op] = []
    for op in program.main.ops:
        if op.name == CALL:
            block = blocks[op.block]
            kept_in = {value.id for value in small[op.block].inputs}
            pairs = zip(op.inputs, block.inputs, strict=True)
            args = tuple(actual for actual, formal in pairs if formal.id in kept_in)
            outputs = tuple(op.outputs[i] for i in sorted(kept_out[op.block]))
            op = replace(op, args=args, outputs=outputs)
        ops.append(op)
    main = replace(program.main, ops=tuple(ops))
    return replace(program, main=main, blocks=tuple(small.values()))


def _small(block: Block, wanted: set[int]) -> Block:
    outputs = tuple(block.outputs[i] for i in sorted(wanted))
    ops = Slices(block.ops).leading_to({value.id for value in outputs})
    read = {value.id for op in ops for value in op.inputs} | {value.id for value in outputs}
    inputs = tuple(value for value in block.inputs if value.id in read)
    return Block(name=block.name, inputs=inputs, ops=tuple(ops), outputs=outputs)


def without_dead_ops(block: Block) -> Block:
    """`block` without ops whose results nobody reads (views that a gather was moved before)."""
    needed = {value.id for value in block.outputs}
    kept: list[Op] = []
    for op in reversed(block.ops):
        if not op.outputs or any(value.id in needed for value in op.outputs):
            kept.append(op)  # what has no result is done for its effect: something is sent
            needed |= {value.id for value in op.inputs}
    return replace(block, ops=tuple(reversed(kept)))


class Slices:
    """Which of some ops lead to a value."""

    def __init__(self, ops: tuple[Op, ...]) -> None:
        self._ops = ops
        self._made = {value.id: i for i, op in enumerate(ops) for value in op.outputs}

    def leading_to(self, wanted: set[int], held: Collection[int] = ()) -> list[Op]:
        """The ops that lead to the values `wanted` from those `held` and from what no op gives."""
        found: set[int] = set()
        open_ = list(wanted)
        while open_:
            at = self._made.get(open_.pop())
            if at is not None and at not in found:
                found.add(at)
                open_ += [v.id for v in self._ops[at].inputs if v.id not in held]
        return [self._ops[at] for at in sorted(found)]
