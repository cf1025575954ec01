"""Learning rate schedulers: not run while recording, replayed by the host after each step."""

import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from supernode.capture import compat
from supernode.capture.hyper import PROMOTED
from supernode.capture.sites import user_line
from supernode.errors import CaptureError


class Stale:
    """Stands in the groups for a number that a scheduler has moved on; any use is refused."""

    def __init__(self, where: str) -> None:
        self._where = where

    def _refuse(self, *args: Any) -> Any:
        raise CaptureError(
            "a learning rate is used after its scheduler was stepped",
            where=self._where,
            fix="step the scheduler last, after optimizer.step()",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __pow__ = __rpow__ = _refuse
    __truediv__ = __rtruediv__ = __neg__ = __float__ = __int__ = __bool__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __getitem__ = __format__ = _refuse
    __hash__ = object.__hash__


@dataclass(slots=True)
class Schedule:
    """The schedulers that one step steps, in order."""

    stepped: list[LRScheduler] = field(default_factory=list[LRScheduler])

    def replay(self) -> None:
        """Steps them for real."""
        with warnings.catch_warnings():
            # The optimizer did step, but not by its own method, which is what torch looks at.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for scheduler in self.stepped:
                scheduler.step()

    def states(self) -> list[dict[str, Any]]:
        """The state of each, once."""
        return [scheduler.state_dict() for scheduler in dict.fromkeys(self.stepped)]

    def restore(self, states: list[dict[str, Any]]) -> None:
        """The reverse of `states`, of a schedule of the same schedulers."""
        for scheduler, state in zip(dict.fromkeys(self.stepped), states, strict=True):
            scheduler.load_state_dict(state)

    @contextmanager
    def recording(self) -> Generator[None]:
        """Notes calls of `step` instead of running them."""
        with ExitStack() as stack:
            for kind in compat.scheduler_classes():
                for name in ("step", "get_last_lr"):
                    if name in vars(kind):
                        stand_in = self._note if name == "step" else _refuse_last_lr
                        stack.enter_context(compat.patched(kind, name, _method(stand_in)))
            yield

    def _note(self, scheduler: LRScheduler, *args: Any, **kwargs: Any) -> None:
        if isinstance(scheduler, ReduceLROnPlateau):
            raise CaptureError(
                "ReduceLROnPlateau needs the number of a metric inside of the step",
                where=user_line(),
                fix="step it outside, with the loss that the step returns",
            )
        if args or kwargs:
            raise CaptureError(
                "a scheduler is stepped to an epoch given by number",
                where=user_line(),
                fix="call scheduler.step() without arguments, or step it outside",
            )
        self.stepped.append(scheduler)
        stale = Stale(user_line())
        for group in scheduler.optimizer.param_groups:
            for key in PROMOTED:
                if key in group:
                    group[key] = stale


def _method(function: Any) -> Any:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _refuse_last_lr(scheduler: LRScheduler) -> None:
    raise CaptureError(
        "scheduler.get_last_lr() is called inside of the step",
        where=user_line(),
        fix="call it outside of the step",
    )
