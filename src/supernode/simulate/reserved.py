"""What the allocator of a chip reserves over a step: replayed when it is asked, and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from supernode.ir import Program
from supernode.plan import Reserved, job_requests, replay
from supernode.plan.memory import Early
from supernode.plan.storage import Callee

CLOSE = 0.9
"""Stages that hold at least this part of what the fullest does are replayed too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The program of a chip of a stage, the buffers taken early, what it keeps for a peer, and the
    most that tensors take."""

    program: Program
    early: Sequence[Early]
    lent_bytes: int
    peak_bytes: int


class Replays:
    """The steps of the fullest chips, with what was found of their blocks.

    `on` is the worst of them where the allocator may reserve `room_bytes`, of which libraries take
    `workspace_bytes` for each thread.
    """

    def __init__(self, holders: Sequence[Holder], known: dict[int, Callee]) -> None:
        most = max(holder.peak_bytes for holder in holders)
        self._holders = [each for each in holders if each.peak_bytes >= CLOSE * most]
        self._known = known
        self._found: dict[tuple[float, int], Reserved] = {}

    def on(self, room_bytes: float, workspace_bytes: int) -> Reserved:
        """Where a step does not fit, what is reserved is that on a device large enough."""
        wanted = self._most(inf, workspace_bytes)
        if wanted.reserved_bytes <= room_bytes:
            return wanted  # no request was refused
        found = self._most(room_bytes, workspace_bytes)
        return found if found.fits else replace(wanted, fits=False)

    def _most(self, room_bytes: float, workspace_bytes: int) -> Reserved:
        key = room_bytes, workspace_bytes
        if key not in self._found:
            each = [self._replay(holder, *key) for holder in self._holders]
            self._found[key] = Reserved(
                allocated_bytes=max(one.allocated_bytes for one in each),
                reserved_bytes=max(one.reserved_bytes for one in each),
                fits=all(one.fits for one in each),
            )
        return self._found[key]

    def _replay(self, holder: Holder, room_bytes: float, workspace_bytes: int) -> Reserved:
        asked = job_requests(
            holder.program,
            early=holder.early,
            known=self._known,
            beside=(holder.lent_bytes,),
            workspace_bytes=workspace_bytes,
        )
        return replay(asked, room_bytes)
