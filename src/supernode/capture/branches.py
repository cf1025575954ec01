"""Branches on data, read off the source of the frame that asks.

A number that is known only when the step runs is asked whether it is true. Which branch of which
statement hangs on that is in the source; where it isn't found, nobody guesses.
"""

import ast
import dis
import inspect
import linecache
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType

_OURS = "supernode.capture"
"""The modules whose frames lie between a branch and the number it asks for."""
_DECIDING = ("POP_JUMP", "JUMP_IF", "TO_BOOL", "UNARY_NOT")
"""The instructions that ask whether something is true start so."""
Place = tuple[int, int, int, int]
"""First line, last line, and the columns where a piece of source starts and ends."""


def deciding_frame() -> FrameType | None:
    """The frame outside of capture that asks whether something is true, if one does."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return None
    decides = dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(_DECIDING)
    return frame if decides else None


def operand_asked(
    frame: FrameType, test: ast.expr, outcome: bool
) -> tuple[Place, bool | None] | None:
    """The operand of `test` that a frame asks for, and how it must come out for the whole to be
    `outcome`: None where others decide, too. None if it asks for something else."""
    # What it asks was computed just before; the place of the jump itself is any.
    places = [*frame.f_code.co_positions()][: frame.f_lasti // 2]
    whole = _place(test)
    asked = next((each for each in reversed(places) if _within(each, whole)), None)
    for operand, needed in _needed(test, outcome):
        if _place(operand) == asked:
            return _place(operand), needed
    return None


def statements(frame: FrameType) -> Iterator[ast.If | ast.Assert]:
    """The statements whose tests are on the line of a frame."""
    line = frame.f_lineno
    for node in _statements(frame.f_code.co_filename):
        if not isinstance(node, ast.If | ast.Assert):
            continue
        if node.test.lineno <= line <= (node.test.end_lineno or line):
            yield node


@lru_cache(maxsize=64)
def _statements(path: str) -> tuple[ast.AST, ...]:
    """The statements of a file that no `except` of their function can catch an error of."""
    try:
        queue: list[ast.AST] = [ast.parse("".join(linecache.getlines(path)))]
    except SyntaxError:
        return ()
    found: list[ast.AST] = []
    while queue:
        node = queue.pop()
        found.append(node)
        tried = [*node.body] if isinstance(node, ast.Try | ast.TryStar) and node.handlers else []
        queue += [each for each in ast.iter_child_nodes(node) if each not in tried]
    return tuple(found)


def _needed(test: ast.expr, outcome: bool) -> Iterator[tuple[ast.expr, bool | None]]:
    """The operands of a test, and how each must come out if it is asked; None where others
    decide, too."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _needed(test.operand, not outcome)
    elif isinstance(test, ast.BoolOp):
        # All of `a and b` must be true; `a or b` is asked for b only where a was not.
        every = isinstance(test.op, ast.And) == outcome
        for operand in test.values:
            for each, needed in _needed(operand, outcome):
                yield each, needed if every or operand is test.values[-1] else None
    else:
        yield test, outcome


def _place(node: ast.expr) -> Place:
    return node.lineno, node.end_lineno or 0, node.col_offset, node.end_col_offset or 0


def _within(place: tuple[int | None, ...], other: Place) -> bool:
    first, last, start, end = place
    if first is None or last is None or start is None or end is None:
        return False
    return (other[0], other[2]) <= (first, start) and (last, end) <= (other[1], other[3])
