"""The native part of the shared-memory fabric, compiled for this host at first use."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from ctypes import c_char_p, c_int, c_int32, c_int64, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import torch

from supernode.errors import SupernodeError
from supernode.run.fabric.interface import Reduction

# Index = the number of it in fabric.c and reduce.h.
KINDS = (
    "barrier",
    "all_reduce",
    "all_reduce in place",
    "reduce_scatter",
    "all_gather",
    "all_to_all",
)
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.bool,
)
OPS: tuple[Reduction, ...] = ("sum", "max", "min")
DONE, ABORTED, LATE, READING, MISMATCH = range(5)

_COMPILE_S = 300.0
"""Ten seconds on an idle host, far more on a busy one."""

_SOURCES = Path(__file__).with_name("native")
_FLAGS = ("-std=c11", "-O3", "-march=native", "-fwrapv", "-ffp-contract=off", "-shared", "-fPIC")

# name -> (result, arguments)
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "sn_control_bytes": (c_int64, (c_int64,)),
    "sn_fabric_bytes": (c_int64, (c_int64,)),
    "sn_slots": (c_int64, ()),
    "sn_attach": (
        None,
        (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int, c_uint64),
    ),
    "sn_abort": (None, (c_void_p, c_int32, c_char_p)),
    "sn_abort_reason": (c_char_p, (c_void_p, c_void_p)),
    "sn_signal": (None, (c_void_p, c_int64, c_int64, c_uint64)),
    "sn_wait": (c_int, (c_void_p, c_int64, c_uint64)),
    "sn_slot_value": (c_uint64, (c_void_p, c_int64)),
    "sn_sleeps": (c_int, (c_void_p, c_int64)),
    "sn_missing": (None, (c_void_p, c_int, c_void_p)),
    "sn_mismatch": (c_int64, (c_void_p, c_void_p)),
    "sn_prefer_huge_pages": (None, (c_void_p, c_int64)),
    "sn_barrier": (c_int, (c_void_p, c_void_p, c_int64)),
    "sn_collective": (
        c_int,
        (c_void_p, c_int, c_int, c_int, c_void_p, c_int64, c_char_p, c_char_p, c_int64, c_int64),
    ),
    "sn_all_reduce_in_place": (
        c_int,
        (c_void_p, c_int, c_int, c_void_p, c_int64, c_int64, c_int64),
    ),
}


@cache
def native_library() -> ctypes.CDLL:
    """The compiled library with typed functions; raises `SupernodeError` without a C compiler."""
    library = ctypes.CDLL(str(_built()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _built() -> Path:
    compiler = _compiler()
    target = _cache_folder() / f"fabric-{_key(compiler)}.so"
    if target.exists():
        return target
    # Compiled aside and renamed: processes that start together may all build, and none sees half.
    with _folder_in(target.parent) as folder:
        fresh = Path(folder) / target.name
        command = [*compiler, *_FLAGS, "-o", str(fresh), str(_SOURCES / "fabric.c")]
        done = _ran(command)
        if done.returncode:
            raise SupernodeError(
                f"the C compiler failed on the shared-memory fabric:\n{done.stderr.strip()}",
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


def _folder_in(cache: Path) -> "tempfile.TemporaryDirectory[str]":
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=cache)
    except OSError as error:
        raise SupernodeError(
            f"{cache} can't be written: {error.strerror}",
            asked="the shared-memory fabric, which is compiled at first use",
            fix="set XDG_CACHE_HOME to a folder that can",
        ) from error


def _compiler() -> list[str]:
    named = os.environ.get("CC")
    for candidate in [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]:
        if candidate and shutil.which(candidate[0]):
            return candidate
    raise SupernodeError(
        f"CC names no program: {named}" if named else "no C compiler: none of cc, gcc, clang",
        asked="the shared-memory fabric, which is compiled at first use",
        fix="install gcc or clang, or set CC",
    )


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "supernode"


def _key(compiler: list[str]) -> str:
    version = _ran([*compiler, "--version"]).stdout.encode()
    digest = hashlib.sha256(version + shlex.join([*compiler, *_FLAGS]).encode() + _processor())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> bytes:
    """What -march=native looks at: the same home folder may serve hosts of different kinds."""
    lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n", 1)[0].splitlines()
    wanted = (b"model name", b"flags", b"Features", b"CPU part")
    return b"\n".join(line for line in lines if line.startswith(wanted))
