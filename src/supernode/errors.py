"""Every error a user of supernode can see.

A message has up to five parts: what is wrong (expected and got), what was asked, the op (dtypes,
shapes, layouts where it has them), where (line and module of the user's model) and what to do.
Inner code gives the reason; whoever knows more adds it with `complete`. Broken invariants of our
own are `assert`s.
"""

import difflib
from collections.abc import Iterable
from typing import Self


class SupernodeError(Exception):
    """Something a user asked for can't be done.

    `str(error)` is the whole message: `wrong`, then one line each for `asked`, `op`, `where` and
    `fix` where they are given. `where` is a line of the user's code; `module` the path of the
    module that ran.
    """

    def __init__(
        self, wrong: str, *, asked: str = "", op: str = "", where: str = "", fix: str = ""
    ) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.asked = asked
        self.op = op
        self.where = where
        self.module = ""
        self.fix = fix

    def complete(self, *, asked: str = "", op: str = "", where: str = "", module: str = "") -> Self:
        """Adds what the raiser did not know; what it did say stays."""
        self.asked = self.asked or asked
        self.op = self.op or op
        self.where = self.where or where
        self.module = self.module or module
        return self

    def __str__(self) -> str:
        where = self.where + (f", in {self.module}" if self.where and self.module else "")
        labelled = {"asked": self.asked, "op": self.op, "where": where, "fix": self.fix}
        lines = [f"  {label}: {text}" for label, text in labelled.items() if text]
        return "\n".join([self.wrong, *lines])


class UnknownName(SupernodeError):
    """A machine, recipe, op or value of that name does not exist."""


class CaptureError(SupernodeError):
    """The step can't become a Program."""


class VerifyError(SupernodeError):
    """A Program or Plan breaks a rule of its own format (a damaged file, mostly)."""


class UnknownOp(SupernodeError):
    """An op has no row in the op table."""


class LayoutError(SupernodeError):
    """A layout does not fit the program or the machine."""


class MachineFileError(SupernodeError):
    """A machine file is malformed."""


class CheckpointError(SupernodeError):
    """A checkpoint can't be written, is damaged, or is of another model."""


class DoesNotFit(SupernodeError):
    """More memory is needed than there is."""


class InputError(SupernodeError):
    """An argument is of the wrong kind, shape or number."""


class CheckFailed(SupernodeError):
    """What the step itself checks about its data (`torch._check`) does not hold in a run."""


class ChipFailed(SupernodeError):
    """A chip died or raised while it ran a step."""


MOST_NAMES = 20
"""How many known names a message lists where none is near."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """A `fix` text for an unknown name: the nearest known ones, else all of them.

    >>> near_matches("cloudmatrix", ["cloudmatrix384", "hgx-h20"])
    'did you mean cloudmatrix384?'
    """
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f" … ({len(known)} in all)" if len(known) > MOST_NAMES else ""
    return f"known: {', '.join(known[:MOST_NAMES])}{more}"
