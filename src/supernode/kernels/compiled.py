"""C code compiled for this host at first use, and kept for the next process."""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from supernode.errors import SupernodeError

_FLAGS = ("-std=c11", "-O3", "-march=native", "-fwrapv", "-ffp-contract=off", "-shared", "-fPIC")
_LIBRARIES = ("-lm",)

_COMPILE_S = 300.0
"""Ten seconds on an idle host, far more on a busy one."""


def compiled(source: Path, what: str) -> Path:
    """The library made of `source` and the headers beside it, from the cache if it is there.

    Raises:
        SupernodeError: there is no C compiler, it fails, or the cache can't be written; `what`
            names what the library is for.
    """
    compiler = _compiler(what)
    target = _cache_folder() / f"{source.stem}-{_key(compiler, source.parent)}.so"
    if target.exists():
        return target
    # Compiled aside and renamed: processes that start together may all build, and none sees half.
    with _folder_in(target.parent, what) as folder:
        fresh = Path(folder) / target.name
        command = [*compiler, *_FLAGS, "-o", str(fresh), str(source), *_LIBRARIES]
        done = _ran(command)
        if done.returncode:
            raise SupernodeError(
                f"the C compiler failed on {what}:\n{done.stderr.strip()}",
                asked=shlex.join(command),
                fix="set CC to a C11 compiler for this host",
            )
        fresh.replace(target)
    return target


def _ran(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_COMPILE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SupernodeError(
            f"the C compiler has not ended after {_COMPILE_S:g} s",
            asked=shlex.join(command),
            fix="set CC to a C11 compiler for this host",
        ) from error


def _folder_in(cache: Path, what: str) -> "tempfile.TemporaryDirectory[str]":
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=cache)
    except OSError as error:
        raise SupernodeError(
            f"{cache} can't be written: {error.strerror}",
            asked=f"{what}, which is compiled at first use",
            fix="set XDG_CACHE_HOME to a folder that can",
        ) from error


def _compiler(what: str) -> list[str]:
    named = os.environ.get("CC")
    for candidate in [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]:
        if candidate and shutil.which(candidate[0]):
            return candidate
    raise SupernodeError(
        f"CC names no program: {named}" if named else "no C compiler: none of cc, gcc, clang",
        asked=f"{what}, which is compiled at first use",
        fix="install gcc or clang, or set CC",
    )


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "supernode"


def _key(compiler: list[str], sources: Path) -> str:
    version = _ran([*compiler, "--version"]).stdout.encode()
    command = shlex.join([*compiler, *_FLAGS, *_LIBRARIES])
    digest = hashlib.sha256(version + command.encode() + _processor())
    for source in sorted(sources.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> bytes:
    """What -march=native looks at: the same home folder may serve hosts of different kinds."""
    lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n", 1)[0].splitlines()
    wanted = (b"model name", b"flags", b"Features", b"CPU part")
    return b"\n".join(line for line in lines if line.startswith(wanted))
