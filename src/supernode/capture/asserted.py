"""Branches on data of which one way raises: the step goes the other, which is a check.

`if not valid.all(): raise ValueError(…)` and `assert (labels < classes).all()` decide nothing else.
Which branch runs is read off the source of the frame that asks; where it can't be, nobody guesses.
"""

import ast
import dis
import inspect
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_OURS = "supernode.capture"
"""The modules whose frames lie between a branch and the number it asks for."""
_DECIDING = ("POP_JUMP", "JUMP_IF", "TO_BOOL", "UNARY_NOT")
"""The instructions that ask whether something is true start so."""
Place = tuple[int, int, int, int]
"""First line, last line, and the columns where a piece of source starts and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyWay:
    """How a branch must come out, and what is said where it does not."""

    outcome: bool
    message: str


def only_way() -> OnlyWay | None:
    """How the branch that is being decided must come out for the step to go on; None if it may
    come out both ways, or is not understood."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return None
    if not dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(_DECIDING):
        return None
    places = [*frame.f_code.co_positions()][: frame.f_lasti // 2]
    for test, goes_on, message in _guards(frame.f_code.co_filename, frame.f_lineno):
        # What it asks was computed just before; the place of the jump itself is any.
        whole = _place(test)
        asked = next((each for each in reversed(places) if _within(each, whole)), None)
        for operand, outcome in _needed(test, goes_on):
            if _place(operand) == asked:
                return None if outcome is None else OnlyWay(outcome=outcome, message=message)
    return None


def _guards(path: str, line: int) -> Iterator[tuple[ast.expr, bool, str]]:
    """The tests of a line of which one outcome surely raises: the other, and what is said."""
    for node in _statements(path):
        if not isinstance(node, ast.If | ast.Assert):
            continue
        if not node.test.lineno <= line <= (node.test.end_lineno or line):
            continue
        if isinstance(node, ast.Assert):
            yield node.test, True, _said(node.msg) or ast.unparse(node)
        elif (raised := _raises(node.body)) is not None:
            yield node.test, False, _said(raised) or ast.unparse(node.test)
        elif (raised := _raises(node.orelse)) is not None:
            yield node.test, True, _said(raised) or ast.unparse(node.test)


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


def _raises(body: list[ast.stmt]) -> ast.expr | None:
    """What a body raises that does nothing but that in the end."""
    last = body[-1] if body else None
    if not isinstance(last, ast.Raise) or last.exc is None:
        return None
    before = (each for statement in body[:-1] for each in ast.walk(statement))
    leaves = ast.Return | ast.Break | ast.Continue | ast.Yield | ast.YieldFrom
    return None if any(isinstance(each, leaves) for each in before) else last.exc


def _said(raised: ast.expr | None) -> str:
    """The text of an error, with a question mark for what it shows of the run."""
    if isinstance(raised, ast.Call):
        raised = raised.args[0] if raised.args else None
    if isinstance(raised, ast.Constant) and isinstance(raised.value, str):
        return raised.value
    if isinstance(raised, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "?" for part in raised.values
        )
    return ""


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
