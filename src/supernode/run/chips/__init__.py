"""The kinds of chips: one file each."""

from supernode.errors import UnknownName, near_matches
from supernode.run.chips.chip import ChipKind as ChipKind
from supernode.run.chips.cpu import Cpu
from supernode.run.chips.cuda import Cuda

KINDS: dict[str, ChipKind] = {kind.name: kind for kind in (Cuda(), Cpu())}
"""Every kind by name; `local` is the first that this host has."""


def chip_kind(name: str) -> ChipKind:
    """The kind of that name, or the best this host has for `local`.

    Raises:
        UnknownName: there is no such kind.
    """
    if name == "local":
        return next(kind for kind in KINDS.values() if kind.count())
    if name not in KINDS:
        known = ["local", *KINDS]
        raise UnknownName(f"no kind of chip is named {name!r}", fix=near_matches(name, known))
    return KINDS[name]
