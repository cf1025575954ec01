"""Where a kernel is written, so that another process can make it anew from there."""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from supernode.errors import InputError

_SCRIPT = "__supernode_main__"
"""What a script is called in the process of a chip, where it is not what is run."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A module, and the path of its file."""

    module: str
    path: str

    def __str__(self) -> str:
        return self.path

    def check(self, name: str) -> None:
        """Raises `InputError` if no other process can make what is written here."""
        if not os.path.isfile(self.path):
            raise InputError(
                f"the kernel {name} is written in {self.path}, which is no file, so the processes "
                "of the chips can't make it",
                fix="write it in a module (a .py file) and import it",
            )


def origin_of(function: Callable[..., Any]) -> Origin:
    """Where `function` is written."""
    module = "__main__" if function.__module__ == _SCRIPT else function.__module__
    return Origin(module, function.__code__.co_filename)


def make(origins: Iterable[Origin]) -> None:
    """Imports what is written there; a script runs as a module that is not `__main__`."""
    for origin in origins:
        if origin.module == "__main__":
            _from_file(_SCRIPT, origin.path)
            continue
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(origin.module)
            if getattr(found, "__file__", None) == origin.path:
                continue
        _from_file(origin.module, origin.path)


def is_making() -> bool:
    """Whether this process runs a script only for the kernels in it."""
    return _SCRIPT in sys.modules


def _from_file(name: str, path: str) -> None:
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == path:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
