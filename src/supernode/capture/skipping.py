"""Branches on data of which one way steps an optimizer, and the other does nothing.

`if norm.isfinite(): optimizer.step()` is recorded as if it stepped; what that changes stays only
where the test holds in a run.
"""

import ast
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import getitem
from types import FrameType
from typing import Any, cast

from torch.optim import Optimizer

from supernode.capture import compat
from supernode.capture.branches import Place, deciding_frame, operand_asked, statements
from supernode.capture.host import HostLedger
from supernode.capture.perhaps import Perhaps
from supernode.capture.tape import KwArgs
from supernode.capture.tensors import Tensors
from supernode.ir import Arg, TensorType, Value

_BOOL = TensorType("bool", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Awaited:
    """The step that a frame takes next where all `conditions`, by place in the test, hold."""

    frame: FrameType
    node: ast.If
    optimizer: Optimizer
    conditions: dict[Place, Value]
    own_step: Any  # an attribute of the optimizer itself, as schedulers give it; or None

    def is_called_by(self, caller: FrameType) -> bool:
        """Whether this frame is at a line of the branch, and not of the test."""
        line, node = caller.f_lineno, self.node
        return caller is self.frame and node.body[0].lineno <= line <= (node.end_lineno or line)


class Skipping:
    """Lets one recorded step skip updates where data says so."""

    def __init__(self, tensors: Tensors, perhaps: Perhaps) -> None:
        self._tensors = tensors
        self._perhaps = perhaps
        self._awaited: _Awaited | None = None

    @contextmanager
    def recording(self, ledger: HostLedger) -> Generator[None]:
        """Answers which way a branch goes, where nobody else has an answer."""
        others = ledger.asked

        def asked(source: Value) -> bool | None:
            answer = others(source)
            return self._answer(source) if answer is None else answer

        with compat.patched(ledger, "asked", asked):
            yield

    def _answer(self, source: Value) -> bool | None:
        """How the branch that is being decided comes out, so that the update is recorded."""
        frame = deciding_frame()
        if frame is None:
            return None
        for node in statements(frame):
            if not isinstance(node, ast.If) or (found := _update(node, frame)) is None:
                continue
            optimizer, outcome = found
            asked = operand_asked(frame, node.test, outcome)
            if asked is not None:
                place, needed = asked
                if needed is not None:
                    self._await(frame, node, optimizer, place, self._flag(source, needed))
                return needed
        return None

    def _flag(self, source: Value, needed: bool) -> Value:
        if source.tensor.shape:
            source = self._emit("aten.view", (source, ()))
        return source if needed else self._emit("aten.logical_not", (source,))

    def _emit(self, name: str, args: tuple[Arg, ...]) -> Value:
        kwargs: KwArgs = ()
        (value,) = self._tensors.tape.emit(name, args, kwargs, (_BOOL,))
        return value

    def _await(
        self, frame: FrameType, node: ast.If, optimizer: Optimizer, place: Place, flag: Value
    ) -> None:
        """Takes the step's place until the frame gets there, or to another branch."""
        earlier = self._dismissed()
        conditions: dict[Place, Value] = {}
        if earlier is not None and (earlier.frame, earlier.node) == (frame, node):
            # What stands after it in the test was asked when the frame came here before.
            conditions = {p: each for p, each in earlier.conditions.items() if p < place}
        self._awaited = _Awaited(
            frame=frame,
            node=node,
            optimizer=optimizer,
            conditions={**conditions, place: flag},
            own_step=vars(optimizer).get("step"),
        )
        setattr(optimizer, "step", self._step)  # noqa: B010

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        awaited = self._dismissed()
        assert awaited is not None
        optimizer = awaited.optimizer
        if not awaited.is_called_by(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
            return optimizer.step(*args, **kwargs)
        condition, *more = awaited.conditions.values()
        for each in more:
            condition = self._emit("aten.logical_and", (condition, each))
        with self._perhaps.only_where(condition, optimizer):
            return optimizer.step(*args, **kwargs)

    def _dismissed(self) -> _Awaited | None:
        """What was awaited; it is no longer."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            del awaited.optimizer.step
            if awaited.own_step is not None:
                setattr(awaited.optimizer, "step", awaited.own_step)  # noqa: B010
        return awaited


def _update(node: ast.If, frame: FrameType) -> tuple[Optimizer, bool] | None:
    """The optimizer that one branch steps while the other does nothing, and which branch it is."""
    for body, other, outcome in ((node.body, node.orelse, True), (node.orelse, node.body, False)):
        match body:
            case [ast.Expr(ast.Call(ast.Attribute(owner, "step"), args=[], keywords=[]))]:
                optimizer = _named(owner, frame)
                nothing = all(_only_tells(statement, frame) for statement in other)
                if isinstance(optimizer, Optimizer) and nothing:
                    return optimizer, outcome
            case _:
                pass
    return None


def _only_tells(statement: ast.stmt, frame: FrameType) -> bool:
    """Whether a statement does no more than to print or to log, which a run does not repeat."""
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant()):
            return True
        case ast.Expr(ast.Call(ast.Name("print"))):
            return True
        case ast.Expr(ast.Call(ast.Attribute(owner, _))):
            return isinstance(_named(owner, frame), logging.Logger)
        case _:
            return False


def _named(node: ast.expr, frame: FrameType) -> object:
    """What a name, or an attribute or item of one, stands for in a frame; None if it is more."""
    match node:
        case ast.Name(name):
            return frame.f_locals.get(name, frame.f_globals.get(name))
        case ast.Attribute(owner, name):
            return getattr(_named(owner, frame), name, None)
        case ast.Subscript(owner, ast.Constant(key)):
            found = _named(owner, frame)
            return (
                getitem(found, cast("Any", key)) if isinstance(found, dict | list | tuple) else None
            )
        case _:
            return None
