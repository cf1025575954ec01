"""Access: a chip reads or writes the memory of a peer, or of a host, itself.

**Source:** the first word takes a latency, the rest the links: Hockney, "The communication
challenge for MPP", Parallel Computing 20(3), 1994.
"""

from typing import Literal

from supernode.errors import MachineFileError
from supernode.machine import Level, Machine
from supernode.simulate.comm.parts import part
from supernode.simulate.timing import Timing, timing, weakest

Access = Literal["read", "write", "host_read", "host_write"]


def access_time(way: Access, data_bytes: float, *, machine: Machine, stride: int) -> Timing:
    """The time to read or write `data_bytes` of a peer `stride` chips apart, or of its host.

    Without measurements the level's latency and efficiency stand for reading and writing a peer,
    and the chip's link to its host for the host.

    Raises:
        MachineFileError: the file says nothing of the way to the host.
    """
    level = _level(way, machine, stride)
    rate, fit = level.bandwidth_bytes_per_s.value, level.access
    if fit is not None:
        time_s = fit[f"{way}_s"] + data_bytes / (rate * fit[f"{way}_share"])
        return timing((part(time_s, fit),), data_bytes / rate)
    if way in ("read", "write"):
        time_s = level.latency_s.value + data_bytes / (rate * level.efficiency.value)
        return timing(((time_s, level.latency_s.kind),), data_bytes / rate)
    link = machine.chip.host_link
    if link is None:
        raise MachineFileError(
            f"{machine.name} does not say how a chip reaches the memory of its host",
            fix="give [chip.host_link] with bandwidth_bytes_per_s, latency_s and efficiency",
        )
    rate = link.bandwidth_bytes_per_s.value
    time_s = link.latency_s.value + data_bytes / (rate * link.efficiency.value)
    numbers = (link.bandwidth_bytes_per_s, link.latency_s, link.efficiency)
    return timing(((time_s, weakest(numbers)),), data_bytes / rate)


def _level(way: Access, machine: Machine, stride: int) -> Level:
    """The level that leads there; to a host, the first from there whose access was measured."""
    level = machine.level_spanning(stride + 1)
    if way in ("read", "write"):
        return level
    above = machine.levels[machine.levels.index(level) :]
    return next((each for each in above if each.access), level)
