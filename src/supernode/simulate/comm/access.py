"""Access: a chip reads or writes the memory of a peer, or of a host, itself.

**Source:** the first word takes a latency, the rest the links: Hockney, "The communication
challenge for MPP", Parallel Computing 20(3), 1994.
"""

from typing import Literal

from supernode.machine import Machine
from supernode.simulate.comm.parts import part
from supernode.simulate.timing import Timing, timing

Access = Literal["read", "write", "host_read", "host_write"]


def access_time(way: Access, data_bytes: float, *, machine: Machine, stride: int) -> Timing:
    """The time to read or write `data_bytes` of a peer `stride` chips apart, or of its host.

    Without measurements the level's latency and efficiency stand for all four ways.
    """
    level = machine.level_spanning(stride + 1)
    rate, fit = level.bandwidth_bytes_per_s.value, level.access
    if fit is None:
        time_s = level.latency_s.value + data_bytes / (rate * level.efficiency.value)
        return timing(((time_s, level.latency_s.kind),), data_bytes / rate)
    time_s = fit[f"{way}_s"] + data_bytes / (rate * fit[f"{way}_share"])
    return timing((part(time_s, fit),), data_bytes / rate)
