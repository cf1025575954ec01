"""`supernode run --checkpoint`: when a run saves, and where it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernode.errors import InputError

if TYPE_CHECKING:
    from supernode.api import Step


@dataclass(slots=True, kw_only=True)
class Saving:
    """Into `folder` every so many steps and at the end; with `resume` from what it holds."""

    folder: Path
    every: int
    keep: int
    resume: bool
    data: Any = None

    def check(self) -> None:
        """Raises now, rather than at the first checkpoint, what will keep it from being made."""
        from supernode.checkpoint import check_room_for, newest

        last = newest(self.folder)
        if self.resume and last is None:
            raise InputError(
                f"there is no checkpoint in {self.folder}",
                asked="--resume",
                fix="leave --resume out to start, or name the folder that was saved to",
            )
        if not self.resume and last is not None:
            raise InputError(
                f"{self.folder} holds checkpoints of another run",
                fix="add --resume to go on from them, or name another folder",
            )
        check_room_for(self.folder, 1 + (last or 0))

    def resumed(self, step: Step, recipe: str, inputs: Sequence[Any], steps: int) -> int:
        """How many steps are done: 0, or what the checkpoint says that `step` now holds."""
        self.data = {"recipe": recipe, "batch": list(inputs[0].shape)}
        if not self.resume:
            return 0
        checkpoint = step.load(self.folder)
        if checkpoint.data != self.data:
            raise InputError(
                f"{checkpoint.path} was trained on other data: {checkpoint.data}",
                asked=f"go on with {self.data}",
                fix="give the same recipe and --batch",
            )
        if checkpoint.done >= steps:
            raise InputError(
                f"{checkpoint.path} has {checkpoint.done} steps done already",
                asked=f"go on up to step {steps}",
                fix="give more --steps: they count from the first one",
            )
        return checkpoint.done

    def after(self, step: Step, done: int, steps: int) -> None:
        """Saves, if it is time."""
        if done % self.every == 0 or done == steps:
            step.save(self.folder, done, data=self.data, keep=self.keep)
