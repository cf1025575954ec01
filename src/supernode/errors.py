"""Every error a user of supernode can see.

A message has up to four parts: what was asked, what is wrong (expected and got), where (op,
module, line of the user's model) and what to do. Inner code gives the reason; the public
function that was called adds the context once. Broken invariants of our own are `assert`s.
"""

import difflib
from collections.abc import Iterable


class SupernodeError(Exception):
    """Something a user asked for can't be done.

    `str(error)` is the whole message: `wrong`, then one line each for `asked`, `where` and `fix`
    where they are given.
    """

    def __init__(self, wrong: str, *, asked: str = "", where: str = "", fix: str = "") -> None:
        self.wrong = wrong
        self.asked = asked
        self.where = where
        self.fix = fix
        parts = [wrong]
        parts += [f"  {label}: {text}" for label, text in self._labelled() if text]
        super().__init__("\n".join(parts))

    def _labelled(self) -> tuple[tuple[str, str], ...]:
        return (("asked", self.asked), ("where", self.where), ("fix", self.fix))

    def __reduce__(self):  # exceptions with keyword arguments do not pickle by themselves
        return (_rebuild, (type(self), self.wrong, self.asked, self.where, self.fix))


def _rebuild(kind: type[SupernodeError], wrong: str, asked: str, where: str, fix: str):
    return kind(wrong, asked=asked, where=where, fix=fix)


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


class DoesNotFit(SupernodeError):
    """More memory is needed than there is."""


class InputError(SupernodeError):
    """An argument is of the wrong kind, shape or number."""


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
