"""Finding machine files: those of the catalogue by name, others by path."""

from importlib.resources import files
from pathlib import Path

from supernode.errors import MachineFileError, UnknownName, near_matches
from supernode.machine.machine import Machine
from supernode.machine.parse import parse_machine

_CATALOGUE = files("supernode.machine") / "catalogue"


def catalogue() -> tuple[str, ...]:
    """The names of the machines that come with supernode, sorted."""
    names = (entry.name for entry in _CATALOGUE.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_machine(name_or_path: str | Path) -> Machine:
    """A machine of the catalogue, or the one a file describes if the text ends in `.toml`.

    >>> load_machine("cloudmatrix384").chips
    384

    Raises UnknownName for a name that is not in the catalogue and MachineFileError for a file
    that can't be read or is malformed.
    """
    wanted = str(name_or_path)
    if wanted.endswith(".toml"):
        return parse_machine(_read(wanted), wanted)
    if wanted not in catalogue():
        raise UnknownName(
            f"no machine {wanted!r} in the catalogue",
            fix=f"{near_matches(wanted, catalogue())} (a file is named by a path to a .toml)",
        )
    entry = _CATALOGUE / f"{wanted}.toml"
    return parse_machine(entry.read_text(encoding="utf-8"), entry.name)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MachineFileError(f"can't read it: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise MachineFileError(f"not UTF-8 text: {error.reason}", where=path) from error
