"""Whether the processes of the chips are at work, wait for each other, or stand still.

A step may take hours, so no wait of a step has a length; what counts is whether anybody moves. A
process moves while it is on a core, or in line for one, or has had processor time since the last
look. It stands still when a signal or a debugger has stopped it, or when nobody moves: then the one
to blame is a chip that waits for no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STUCK_AFTER_S = 120.0
"""How long chips may stand still: long enough for a disk or a swapped-out process to come back."""

_STATE, _USER_TICKS, _SYSTEM_TICKS = 0, 11, 12  # places behind the name, see proc_pid_stat(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class VitalSigns:
    """A process at one moment: the letter of its state, and the processor time it has had.

    `in_fabric`: it sleeps until another chip, or the node, comes.

    **Source:** proc_pid_stat(5): R runs or is in line, S and D sleep, T and t are stopped.
    """

    state: str
    cpu_ticks: int
    in_fabric: bool = False

    @property
    def is_stopped(self) -> bool:
        """By SIGSTOP or a debugger."""
        return self.state in "Tt"


def vital_signs(pid: int, *, in_fabric: bool) -> VitalSigns:
    """Those of a process now; one that has ended seems at work: its death is told otherwise."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return VitalSigns(state="R", cpu_ticks=0)
    fields = text.rpartition(")")[2].split()
    ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return VitalSigns(state=fields[_STATE], cpu_ticks=ticks, in_fabric=in_fabric)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Chip `rank` stands still, and how; None where all wait for each other."""

    rank: int | None
    how: str


class Stillness:
    """Counts the looks in a row at which chips stood still; `limit` of them are too many.

    Looks are counted, not seconds: while the whole host or this process group sleeps, nobody looks.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ticks: list[int] = []
        self._stopped: list[int] = []
        self._still = 0

    def look(self, chips: Sequence[VitalSigns]) -> Verdict | None:
        """Takes the next look, at all chips by rank: who has stood still too long, if any."""
        if len(self._ticks) != len(chips):
            self._ticks, self._stopped = [-1] * len(chips), [0] * len(chips)
        moved = any(
            signs.state == "R" or signs.cpu_ticks != before
            for signs, before in zip(chips, self._ticks, strict=True)
        )
        self._ticks = [signs.cpu_ticks for signs in chips]
        self._still = 0 if moved else self._still + 1
        counts = zip(chips, self._stopped, strict=True)
        self._stopped = [count + 1 if signs.is_stopped else 0 for signs, count in counts]
        return self._verdict(chips)

    def _verdict(self, chips: Sequence[VitalSigns]) -> Verdict | None:
        for rank, count in enumerate(self._stopped):
            if count >= self._limit:
                return Verdict(rank=rank, how="stopped by a signal or a debugger")
        if self._still < self._limit:
            return None
        for rank, signs in enumerate(chips):
            if not signs.in_fabric:
                return Verdict(rank=rank, how="asleep, and not for another chip")
        return Verdict(rank=None, how="every chip waits for another")
