"""The allocator of large blocks that worker processes on processors load before the C library."""

import os
import platform
from pathlib import Path

from supernode.kernels import compiled

_PRELOAD = "LD_PRELOAD"  # the dynamic linker's
_SOURCE = Path(__file__).with_name("native") / "region.c"


def region_environment() -> dict[str, str]:
    """What makes a process that is started with it use `region.c`.

    Nothing where the C library is not glibc, or where the user has libraries loaded first: an
    allocator of theirs stays theirs.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get(_PRELOAD):
        return {}
    return {_PRELOAD: str(compiled(_SOURCE, "the allocator of the workers"))}


def end_inheritance() -> None:
    """In such a process: programs that it starts have their own allocator."""
    if Path(os.environ.get(_PRELOAD, "")).name.startswith(_SOURCE.stem):
        del os.environ[_PRELOAD]
