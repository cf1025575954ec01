"""The error that a failed native call stands for, in words."""

import ctypes

from supernode.errors import SupernodeError
from supernode.run.fabric import library
from supernode.run.fabric.arena import Control
from supernode.run.fabric.interface import FabricAborted, FabricMismatch, FabricTimeout


def failure(control: Control, status: int, rank: int, asked: str, late: str = "") -> SupernodeError:
    """What `status` says went wrong on `rank` in the call described by `asked`.

    `late` says what a wait was for, where that is not the arrival of other ranks.
    """
    where = f"rank {rank}"
    if status == library.ABORTED:
        return FabricAborted(f"the run was stopped: {control.aborted()}", asked=asked, where=where)
    if status == library.MISMATCH:
        return FabricMismatch(
            _mismatch(control, rank),
            asked=asked,
            where=where,
            fix="all members of a group make the same calls in the same order",
        )
    return FabricTimeout(
        f"{late or _missing(control, status)} after {control.deadline_s:g} s",
        asked=asked,
        where=where,
    )


def _missing(control: Control, status: int) -> str:
    flags = ctypes.create_string_buffer(control.world)
    control.native.sn_missing(control.state, status == library.READING, flags)
    ranks = [str(rank) for rank, flag in enumerate(flags.raw) if flag]
    subject = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(ranks)} have"
    return f"{subject} not {'let go of a window' if status == library.READING else 'arrived'}"


def _mismatch(control: Control, rank: int) -> str:
    tags = (ctypes.c_uint64 * 2)()
    culprit = control.native.sn_mismatch(control.state, tags)
    return f"rank {rank} calls {_call(tags[0])}, rank {culprit} calls {_call(tags[1])}"


def _call(tag: int) -> str:
    """The tag that `meeting` in fabric.c packs, in words."""
    kind, dtype, op = (tag >> shift & 0xF for shift in (60, 56, 52))
    members, size_bytes = tag >> 40 & 0xFFF, tag & (1 << 40) - 1
    name = library.KINDS[kind]
    if name == "barrier":
        return f"{name} on {members} ranks"
    if "reduce" in name:
        name += f" ({library.OPS[op]}, {str(library.DTYPES[dtype]).removeprefix('torch.')})"
    elif op:
        name += " (transposed)"
    return f"{name} of {size_bytes} bytes on {members} ranks"
