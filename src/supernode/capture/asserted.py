"""Branches on data of which one way raises: the step goes the other, which is a check.

`if not valid.all(): raise ValueError(…)` and `assert (labels < classes).all()` decide nothing else.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from supernode.capture.branches import deciding_frame, operand_asked, statements


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyWay:
    """How a branch must come out, and what is said where it does not."""

    outcome: bool
    message: str


def only_way() -> OnlyWay | None:
    """How the branch that is being decided must come out for the step to go on; None if it may
    come out both ways, or is not understood."""
    frame = deciding_frame()
    if frame is None:
        return None
    for test, goes_on, message in _guards(frame):
        found = operand_asked(frame, test, goes_on)
        if found is not None:
            _, outcome = found
            return None if outcome is None else OnlyWay(outcome=outcome, message=message)
    return None


def _guards(frame: FrameType) -> Iterator[tuple[ast.expr, bool, str]]:
    """The tests of a line of which one outcome surely raises: the other, and what is said."""
    for node in statements(frame):
        if isinstance(node, ast.Assert):
            yield node.test, True, _said(node.msg) or ast.unparse(node)
        elif (raised := _raises(node.body)) is not None:
            yield node.test, False, _said(raised) or ast.unparse(node.test)
        elif (raised := _raises(node.orelse)) is not None:
            yield node.test, True, _said(raised) or ast.unparse(node.test)


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
