"""This host: what it is, what runs on it, and how much of it others took meanwhile."""

import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from supernode import __version__

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """The versions that decide how fast things are."""
    compiler = subprocess.run(
        [os.environ.get("CC", "cc"), "--version"], capture_output=True, text=True, check=True
    )
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "C compiler": compiler.stdout.splitlines()[0],
        "kernel": platform.release(),
        "supernode": __version__,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What else went on during a section.

    Shares are of the time of all cores: `others_share` was used by processes that are none of
    ours, `stolen_share` was taken by the hypervisor.
    """

    load_before: float
    load_after: float
    others_share: float
    stolen_share: float
    wall_s: float

    def __str__(self) -> str:
        return (
            f"load average (1 min) {self.load_before:.2f} before, {self.load_after:.2f} after; "
            f"other processes used {self.others_share:.1%} of the cores, the hypervisor took "
            f"{self.stolen_share:.1%}; {self.wall_s:.0f} s in all"
        )


class Watch:
    """Watches the host from its making to `conditions()`; children must have ended by then."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._start_s = time.monotonic()
        self._busy_s, self._stolen_s = _busy_and_stolen_s()
        self._own_s = _own_s()

    def conditions(self) -> Conditions:
        """What went on since."""
        busy_s, stolen_s = _busy_and_stolen_s()
        wall_s = time.monotonic() - self._start_s
        cores_s = wall_s * (os.cpu_count() or 1)
        others_s = busy_s - self._busy_s - (_own_s() - self._own_s)
        return Conditions(
            load_before=self._load,
            load_after=os.getloadavg()[0],
            others_share=max(0.0, others_s) / cores_s,
            stolen_share=(stolen_s - self._stolen_s) / cores_s,
            wall_s=wall_s,
        )


def _busy_and_stolen_s() -> tuple[float, float]:
    words = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = (int(word) / _TICKS_PER_S for word in words)
    return user + nice + system + irq + softirq, steal


def _own_s() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def descendants(pid: int) -> set[int]:
    """The processes that `pid` started, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text(encoding="utf-8").split()):
            found |= {child, *descendants(child)}
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """The processor time that living processes have used so far."""
    total = 0.0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        total += (int(user) + int(system)) / _TICKS_PER_S
    return total


def others_s() -> float:
    """The processor time that processes other than this one and its living descendants have used.

    Only differences mean anything, and only between moments with the same descendants.
    """
    pid = os.getpid()
    return _busy_and_stolen_s()[0] - cpu_s({pid, *descendants(pid)})


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far.

    Read from /proc: what `getrusage` says is never below the size of the process that started
    this one.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match, "no VmHWM in /proc/self/status"
    return int(match.group(1)) * 1024
