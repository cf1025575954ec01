"""Finding machine files: those of the catalogue by name, others by path."""

import re
from importlib.resources import files
from pathlib import Path

from supernode.errors import MachineFileError, UnknownName, near_matches
from supernode.machine.machine import Machine
from supernode.machine.parse import parse_machine

_ASKED = re.compile(r"(?:([1-9][0-9]{0,6})x)?(.*?)(@die)?", re.DOTALL)
_CATALOGUE = files("supernode.machine") / "catalogue"


def catalogue() -> tuple[str, ...]:
    """The names of the machines that come with supernode, sorted."""
    names = (entry.name for entry in _CATALOGUE.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_machine(name_or_path: str | Path) -> Machine:
    """A machine of the catalogue, or the one a file describes if the text ends in `.toml`.

    `64xhgx-h100` is 64 of them on their network; `cloudmatrix384@die` counts dies as chips.

    >>> load_machine("cloudmatrix384").chips, load_machine("64xhgx-h100").chips
    (384, 512)

    Raises UnknownName for a name that is not in the catalogue and MachineFileError for a file
    that can't be read or is malformed.
    """
    count, wanted, dies = _ask(str(name_or_path))
    machine = _load(wanted)
    machine = machine.by_die() if dies else machine
    return machine.joined(count) if count else machine


def _ask(text: str) -> tuple[int, str, bool]:
    """How many, of which machine, and whether by die."""
    found = _ASKED.fullmatch(text)
    assert found is not None
    count, name, dies = found.groups()
    return int(count or 0), name, bool(dies)


def _load(wanted: str) -> Machine:
    if wanted.endswith(".toml"):
        return parse_machine(_read(wanted), wanted, load_machine)
    if wanted not in catalogue():
        raise UnknownName(
            f"no machine {wanted!r} in the catalogue",
            fix=f"{near_matches(wanted, catalogue())} (a file is named by a path to a .toml)",
        )
    entry = _CATALOGUE / f"{wanted}.toml"
    return parse_machine(entry.read_text(encoding="utf-8"), entry.name, load_machine)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MachineFileError(f"can't read it: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise MachineFileError(f"not UTF-8 text: {error.reason}", where=path) from error
