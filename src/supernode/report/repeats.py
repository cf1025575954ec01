"""What repeats, once: the ops of a block that is called often, and names that differ in numbers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from supernode.ir import CALL, Block, Op, Program

_SEPARATORS = re.compile(r"([.\[\]])")


def ops_once(program: Program) -> Iterator[tuple[Block, Op]]:
    """Every op but calls with its block, in the order in which a step first runs it."""
    seen: set[str] = set()
    for op in program.main.ops:
        if op.name != CALL:
            yield program.main, op
        elif op.block not in seen:
            seen.add(op.block)
            block = program.block(op.block)
            yield from ((block, inner) for inner in block.ops)


def pattern_of(name: str) -> str:
    """`name` with `*` for each number between dots or brackets.

    >>> pattern_of("optimizer.exp_avg[layers.3.mlp.fc2.weight]")
    'optimizer.exp_avg[layers.*.mlp.fc2.weight]'
    """
    return "".join("*" if part.isdecimal() else part for part in _SEPARATORS.split(name))


def order_of(modules: Iterable[str]) -> Mapping[str, int]:
    """The place of each pattern of `modules` in the order of first mention; no module is last."""
    patterns = list(dict.fromkeys(pattern_of(module) for module in modules if module))
    return {pattern: place for place, pattern in enumerate([*patterns, ""])}


def common_name(names: Sequence[str]) -> str:
    """Names of one number of parts as one: `*` for each part in which they differ.

    >>> common_name(["layers.0.conv.1.weight", "layers.2.conv.1.weight"])
    'layers.*.conv.1.weight'
    """
    columns = zip(*(_SEPARATORS.split(name) for name in names), strict=True)
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in columns)
