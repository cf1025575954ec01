"""What is kept on disk between runs: captured Programs and predictions.

Each is found by what was asked and by the code that answers, so that a change of the code asks
again, and only what the change can alter: a row by the content of its own machine, a Program by
the rooms that capture. A run that was cut off goes on where it was.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from supernode.accuracy.case import Case
from supernode.errors import SupernodeError
from supernode.ir import Program, from_json, to_json
from supernode.machine import Machine

CAPTURING = ("capture", "ir", "kernels", "models", "errors.py", "units.py")
"""The sources that a captured Program depends on."""
PREDICTING = (
    *CAPTURING,
    "accuracy/loop.py",
    "accuracy/parts.py",
    "accuracy/predict.py",
    "accuracy/shorter.py",
    "machine",
    "ops",
    "partition",
    "plan",
    "simulate",
    "trace",
)
"""Those that a prediction depends on, beside the content of the machine's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The time of a case, the range it states, and whether its plans fit the chips."""

    time_s: float
    low_s: float
    high_s: float
    fits: bool
    causes_s: dict[str, float]


Answer = Prediction | str
"""A prediction, or the reason why there is none."""


def cache_folder() -> Path:
    """Where captures and predictions are kept: in `$XDG_CACHE_HOME/supernode/`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "supernode" / "accuracy"


class Kept:
    """Programs and answers in `folder`; None keeps nothing."""

    def __init__(self, folder: Path | None, machine_of: Callable[[Case], Machine]) -> None:
        self._folder, self._machine_of = folder, machine_of

    def answer(self, case: Case) -> Answer | None:
        """What was found before, or None."""
        path = self._answer_path(case)
        if path is None or not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, str) else Prediction(**found)

    def keep(self, case: Case, answer: Answer) -> None:
        """Keeps what was found."""
        path = self._answer_path(case)
        if path is not None:
            _write(path, json.dumps(answer if isinstance(answer, str) else asdict(answer)))

    def _answer_path(self, case: Case) -> Path | None:
        """Rows that ask the same share the answer."""
        if self._folder is None:
            return None
        try:
            machine: object = self._machine_of(case)
        except SupernodeError:  # the reason of the answer
            machine = None
        asked = (case.parts, case.machine, machine, code_version(PREDICTING))
        return self._folder / "rows" / f"{_digest(asked)}.json"

    def program(self, key: object, capture: Callable[[], Program]) -> Program:
        """The Program of `key`, captured if it is not kept."""
        if self._folder is None:
            return capture()
        path = self._folder / "programs" / f"{_digest((key, code_version(CAPTURING)))}.json"
        if path.is_file():
            return from_json(path.read_text(encoding="utf-8"))
        program = capture()
        _write(path, to_json(program))
        return program


def _digest(asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:24]


def _write(path: Path, text: str) -> None:
    """Whole or not at all, as other processes read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@functools.lru_cache
def code_version(parts: tuple[str, ...]) -> str:
    """A digest of the sources of these rooms and files, and of torch's version."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(torch.__version__.encode())
    for part in sorted(parts):
        here = root / part
        for path in sorted(here.rglob("*.py")) if here.is_dir() else [here]:
            where = path.relative_to(root).as_posix()
            digest.update(f"{where}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
