"""This host by name: its processor, cores and memory."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from supernode.units import format_bytes


def slugged(name: str) -> str:
    """A name as a part of one of a file: `NVIDIA H200` is `nvidia-h200`."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The processor by name, its cores and the memory."""

    model: str
    cores: int
    memory_bytes: int

    @classmethod
    def here(cls) -> "Hardware":
        """That of this host, with the cores this process may use."""
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
        pages = os.sysconf("SC_PHYS_PAGES")
        return cls(
            model=model.group(1).strip() if model else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        )

    @property
    def slug(self) -> str:
        """The name in a file name: `amd-epyc-2-cores`."""
        return slugged(f"{self.model} {self.cores} cores")

    @property
    def name(self) -> str:
        """The name in a table."""
        return f"{self.model}, {self.cores} cores"

    def __str__(self) -> str:
        return f"{self.name}, {format_bytes(self.memory_bytes)} of memory"
