"""Activations computed again in backward, rather than held from forward on.

A value that forward computes and only backward still reads is dropped, and the ops that lead to it
from what is held run once more, right before its first reader. For a repeated block that is a block
of its own, joined to the backward block that reads it: a weight that both need is gathered once.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from supernode.ir import CALL, Block, NewValues, Op, Program, Value, renamed, verify
from supernode.ops import cost
from supernode.partition.fuse import Fuser, Slices, trimmed
from supernode.partition.routing import SORTS, moved_rows

MODEL, NONE, SELECTIVE, FULL = "model", "none", "selective", "full"
MODES = {
    MODEL: "what the model wraps in torch.utils.checkpoint runs again (as when nothing is said)",
    NONE: "every activation is held until backward has read it",
    SELECTIVE: "what costs little to compute again is not held: norms, activation functions, "
    "scores of attention that is not fused",
    FULL: "of each repeated block only what it reads is held; all of it runs again in backward",
}
"""The named modes. A number is one too: `recompute=64` is `selective` with that limit."""

CHEAP_FLOPS_PER_BYTE = 256
"""Up to how many FLOP for each byte not held `selective` computes again.

Elementwise ops need a few, the scores of an attention with heads of 128 about 128, a linear layer
of 4096 inputs 4096."""

MOVED_FLOPS_PER_BYTE = 4096
"""What a byte of rows counts that are moved by the order of a sort or multiplied in groups, as they
may cross to the chips of their experts or back: a chip's FLOP/s by the bytes/s of its links, which
is 2,000 to 20,000 today."""


def recompute(program: Program, mode: str) -> Program:
    """`program` with activations dropped and computed again; results are unchanged.

    `mode` is one of `MODES`, or how many FLOP may be spent for each byte that is not held.
    """
    if mode == NONE or (mode == MODEL and not _has_regions(program)):
        return program
    return verify(trimmed(_Again(program, mode).program()))


class _Again:
    """Rewrites main."""

    def __init__(self, program: Program, mode: str) -> None:
        self.source = program
        self.blocks = {block.name: block for block in program.blocks}
        self.readers = _readers(program)
        self.made = {v.id: at for at, op in enumerate(program.main.ops) for v in op.outputs}
        self.dropped: set[int] = set()
        self.again: dict[str, tuple[Block, list[int]]] = {}
        self.group_of: dict[int, str] = {}  # by position in main
        self.now: dict[int, Value] = {}
        self.new = NewValues.of(program.main)
        self.moved = moved_rows(program)
        self._choose_in_blocks(mode)
        self._choose_in_main(mode)
        self.fuser = Fuser(self.blocks)

    def program(self) -> Program:
        """The new program, with outputs of forward blocks that nobody reads any more."""
        ops: list[Op] = []
        for position, op in enumerate(self.source.main.ops):
            before: list[Op] = []
            if op.site.phase != "forward":
                for value in op.inputs:
                    if value.id in self.dropped:
                        self._compute(value, before)
            now = renamed(op, {value.id: self.now.get(value.id, value) for value in op.inputs})
            ops += self._joined(before, now, position)
        main = replace(self.source.main, ops=tuple(ops))
        return replace(self.source, main=main, blocks=tuple(self.blocks.values()))

    def _held(self, value: Value, group: str | None) -> bool:
        """Whether it waits for backward, and is no more than that: what another layer's forward or
        the world outside reads is held, whoever else reads it."""
        ops = self.source.main.ops
        later = False
        for at in self.readers[value.id]:
            if at < 0:
                return False
            if ops[at].site.phase != "forward":
                later = True
            elif group is None or ops[at].name == CALL or self.group_of.get(at) != group:
                return False
        return later

    def _read_later(self, value: Value) -> bool:
        """Whether it is held until backward in any case."""
        ops = self.source.main.ops
        later = any(at < 0 or ops[at].site.phase != "forward" for at in self.readers[value.id])
        return later and value.id not in self.dropped

    def _choose_in_blocks(self, mode: str) -> None:
        calls: dict[str, list[Op]] = defaultdict(list)
        for op in self.source.main.ops:
            if op.name == CALL and op.site.phase == "forward":
                calls[op.block].append(op)
        for name, group in calls.items():
            block = self.blocks[name]
            late = [
                i
                for i in range(len(block.outputs))
                if all(
                    self._held(op.outputs[i], None) or not self.readers[op.outputs[i].id]
                    for op in group
                )
            ]
            ids = {block.outputs[i].id for i in late}
            inside = _inside_regions(block) if mode == MODEL else ids
            chosen = _chosen(block.ops, ids & inside, mode, self.moved.get(name, ()))
            places = [i for i in late if block.outputs[i].id in chosen]
            if places:
                self.again[name] = (_block_again(block, places, ids - chosen), places)
                self.dropped |= {op.outputs[i].id for op in group for i in places}
        self.blocks |= {block.name: block for block, _ in self.again.values()}

    def _choose_in_main(self, mode: str) -> None:
        groups: dict[str, list[Op]] = defaultdict(list)
        for position, op in enumerate(self.source.main.ops):
            if op.name != CALL and op.site.phase == "forward":
                self.group_of[position] = _group(op, mode)
                groups[self.group_of[position]].append(op)
        for group, ops in groups.items():
            values = [value for op in ops for value in op.outputs]
            held = {value.id for value in values if self._held(value, group)}
            if group or mode not in (FULL, MODEL):
                moved = self.moved.get(self.source.main.name, ())
                self.dropped |= _chosen(tuple(ops), held, mode, moved)

    def _compute(self, value: Value, ops: list[Op]) -> None:
        """Appends what computes a dropped value again."""
        if value.id in self.now:
            return
        position = self.made[value.id]
        op = self.source.main.ops[position]
        site = replace(op.site, phase="backward")
        if op.name == CALL:
            block, places = self.again[op.block]
            kept = {formal.id for formal in block.inputs}
            pairs = zip(self.blocks[op.block].outputs, op.outputs, strict=True)
            args = (*op.inputs, *(actual for formal, actual in pairs if formal.id in kept))
            outputs = self.new.like(tuple(op.outputs[i] for i in places))
            ops.append(Op(name=CALL, block=block.name, args=args, outputs=outputs, site=site))
            self.now |= zip((op.outputs[i].id for i in places), outputs, strict=True)
            return
        for source in op.inputs:
            at = self.made.get(source.id, -1)
            alike = self.group_of.get(at) == self.group_of[position]
            if source.id in self.dropped or (alike and not self._read_later(source)):
                self._compute(source, ops)
        outputs = self.new.like(op.outputs)
        moved = renamed(op, {each.id: self.now.get(each.id, each) for each in op.inputs})
        ops.append(replace(moved, outputs=outputs, site=site))
        self.now |= zip((each.id for each in op.outputs), outputs, strict=True)

    def _joined(self, before: list[Op], op: Op, position: int) -> list[Op]:
        """`op` with the calls right before it, that compute what it reads, as one call."""
        if op.name != CALL:
            return [*before, op]
        elsewhere = {
            self.now[id_].id
            for id_ in self.dropped.intersection(self.now)
            if self.readers[id_] != {position}
        }
        kept: list[Op] = []
        for earlier in reversed(before):
            read = {value.id for later in kept for value in later.inputs}
            if earlier.name != CALL or any(value.id in read for value in earlier.outputs):
                kept.insert(0, earlier)
                continue
            also = tuple(i for i, value in enumerate(earlier.outputs) if value.id in elsewhere)
            op = self.fuser.fused(earlier, op, also)
        return [*kept, op]


def _readers(program: Program) -> dict[int, set[int]]:
    """The positions in main of the ops that read each value; -1 where it leaves the program."""
    readers: dict[int, set[int]] = defaultdict(set)
    for position, op in enumerate(program.main.ops):
        for value in op.inputs:
            readers[value.id].add(position)
    for value in program.main.outputs:
        readers[value.id].add(-1)
    return readers


def _has_regions(program: Program) -> bool:
    return any(op.site.region for block in program.all_blocks() for op in block.ops)


def _inside_regions(block: Block) -> set[int]:
    """The values that a checkpointed region makes and that no other op of the block reads."""
    region_of = {value.id: op.site.region for op in block.ops for value in op.outputs}
    for op in block.ops:
        for value in op.inputs:
            if region_of.get(value.id) != op.site.region:
                region_of[value.id] = ""
    return {id_ for id_, region in region_of.items() if region}


def _group(op: Op, mode: str) -> str:
    """What an op of main is computed again with: its region, or its layer where layers are."""
    if mode == MODEL:
        return op.site.region
    return op.site.layer if mode == FULL else ""


def _chosen(ops: tuple[Op, ...], held: set[int], mode: str, moved: Collection[int]) -> set[int]:
    """Which of the values that backward alone reads are dropped."""
    values = [value for op in ops for value in op.outputs if value.id in held]
    if mode in (FULL, MODEL):
        return {value.id for value in values}
    limit = CHEAP_FLOPS_PER_BYTE if mode == SELECTIVE else int(mode)
    slices = Slices(ops)
    dropped: set[int] = set()
    for value in values:
        again = slices.leading_to({value.id}, held - dropped - {value.id})
        if sum(_flops(op, moved) for op in again) <= limit * value.type.size_bytes:
            dropped.add(value.id)
    return dropped


def _flops(op: Op, moved: Collection[int]) -> float:
    """What it counts to run an op again, if those that sort rows or move them give `moved`."""
    flops = cost(op).flops
    if op.outputs[0].id in moved:
        # Rows in the order of one sort are not known to lie as those of another.
        sorts = op.name in SORTS
        flops += math.inf if sorts else MOVED_FLOPS_PER_BYTE * op.outputs[0].type.size_bytes
    return flops


def _block_again(block: Block, places: list[int], held: set[int]) -> Block:
    """What computes the outputs at `places` from the inputs of a block and those outputs held."""
    outputs = tuple(block.outputs[i] for i in places)
    ops = Slices(block.ops).leading_to({value.id for value in outputs}, held)
    given = tuple(value for value in block.outputs if value.id in held)
    return Block(
        name=f"{block.name}_again",
        inputs=(*block.inputs, *given),
        ops=tuple(replace(op, site=replace(op.site, phase="backward")) for op in ops),
        outputs=outputs,
    )
