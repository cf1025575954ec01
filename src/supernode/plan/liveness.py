"""When values die, and where each op may write: what the code generator is told about a block."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from supernode.ir import Block, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Where the ops of one block write, when not into fresh memory.

    `inplace` holds the ops (by position in the block) that overwrite their first operand; `into`
    gives the ops that write straight into the destination of a block output (by position);
    `calls` the destinations that a call hands to its block, and `copied` the outputs that are
    copied to their destination at the end.
    """

    inplace: frozenset[int] = frozenset()
    into: Mapping[int, int] = field(default_factory=dict[int, int])
    calls: Mapping[int, tuple[int | None, ...]] = field(
        default_factory=dict[int, tuple[int | None, ...]]
    )
    copied: tuple[int, ...] = ()


PLAIN = Rewrite()


def last_uses(block: Block) -> dict[int, int]:
    """The position of the op that uses each value last; outputs of the block live past the end.

    A value that nothing uses dies at the op that defines it; an unused input at -1.
    """
    last: dict[int, int] = {value.id: -1 for value in block.inputs}
    for at, op in enumerate(block.ops):
        for value in (*op.inputs, *op.outputs):
            last[value.id] = at
    for value in block.outputs:
        last[value.id] = len(block.ops)
    return last


def unused(block: Block) -> list[Value]:
    """The inputs that nothing in the block reads, nor hands out."""
    last = last_uses(block)
    return [value for value in dict.fromkeys(block.inputs) if last[value.id] < 0]


def deaths(block: Block) -> list[list[Value]]:
    """The values that die at each op, in the order of their definition."""
    last = last_uses(block)
    dying: list[list[Value]] = [[] for _ in block.ops]
    defined = [*block.inputs, *(value for op in block.ops for value in op.outputs)]
    for value in defined:
        if 0 <= last[value.id] < len(block.ops):
            dying[last[value.id]].append(value)
    return dying
