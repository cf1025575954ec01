"""Checks of a step on its data (`torch._check`, `torch._assert_async`).

What a check asks is known only in a run: it is computed in every one, and looked at afterwards.
"""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from supernode.capture import compat
from supernode.capture.asserted import only_way
from supernode.capture.host import HostFloat, HostLedger
from supernode.capture.sites import user_line
from supernode.errors import CaptureError, CheckFailed
from supernode.ir import TensorType, Value

_FAKE = re.compile(r"FakeTensor\(\.\.\., size=\([\d, ]*\)[^()]*\)")
"""How a message of the step shows a tensor that has no value while it is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A tensor of one element that must not be zero, and what the step says where it is.

    `message` has a question mark for each tensor that it shows.
    """

    value: Value
    message: str
    where: str


def check(value: Value, message: str) -> Check:
    """A check of the user's line that runs now."""
    return Check(value=value, message=_FAKE.sub("?", message), where=user_line())


@contextmanager
def recording(checks: list[Check], ledger: HostLedger) -> Generator[None]:
    """Lets `torch._check` and its kin pass where data decides, and branches of which one way
    raises, and notes what they ask."""
    plain = compat.check_with()

    def check_with(error_type: Any, cond: Any, message: Callable[[], Any] | None) -> None:
        source = cond.node.source if isinstance(cond, HostFloat) else None
        if source is None or source.tensor.dtype != "bool":
            plain(error_type, cond, message)
        else:
            checks.append(check(source, _said(message)))

    def asked(source: Value) -> bool | None:
        way = only_way()
        if way is None:
            return None
        held = source
        if not way.outcome:
            (held,) = ledger.tape.emit("aten.logical_not", (source,), (), (_truth(source),))
        checks.append(check(held, way.message))
        return way.outcome

    ledger.asked = asked
    with compat.patched(torch, plain.__name__, check_with):
        yield


def _truth(value: Value) -> TensorType:
    return TensorType("bool", value.tensor.shape)


def _said(message: Callable[[], Any] | None) -> str:
    try:
        return "" if message is None else str(message())
    except CaptureError:
        return ""  # it shows the number in a tensor


def verify_checks(checks: Sequence[Check], outputs: Sequence[Any]) -> None:
    """Looks at what a run gave for each of `checks`.

    Raises:
        CheckFailed: one does not hold.
    """
    for each, output in zip(checks, outputs, strict=True):
        if not output:
            raise CheckFailed(
                f"a check of the step does not hold: {each.message or '(it says nothing)'}",
                where=each.where,
                fix="mend the arguments; the chips have taken this step all the same, and "
                "step.push() gives them the model and the optimizers as they are here",
            )
