"""How long an op takes on a chip: the roofline, with what large ops reach of it, and the launch."""

from supernode.machine import Chip
from supernode.ops import Cost
from supernode.simulate.timing import Timing, timing, weakest


def op_time(cost: Cost, chip: Chip) -> Timing:
    """The time of an op that costs `cost`; nothing for an op that computes and moves nothing.

    The slower of arithmetic and memory traffic counts, since they overlap; the launch comes on
    top. Its bound is the same without launch and at the datasheet's rates.

    **Source:** Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    moved_bytes = cost.bytes_read + cost.bytes_written
    if not moved_bytes and not cost.flops:
        return timing((), 0.0)
    matmul = cost.unit == "matmul"
    peak = chip.peak(cost.dtype) if matmul else chip.vector_flops_per_s
    rates = (peak, chip.matmul_efficiency) if matmul else (peak,)
    bandwidth, streaming = chip.memory.bandwidth_bytes_per_s, chip.memory.efficiency
    arithmetic_s = cost.flops / peak.value
    memory_s = moved_bytes / bandwidth.value
    reached = chip.matmul_efficiency.value if matmul else 1.0
    body = max(
        (arithmetic_s / reached, weakest(rates)),
        (memory_s / streaming.value, weakest((bandwidth, streaming))),
    )
    launch = (chip.launch_overhead_s.value, chip.launch_overhead_s.kind)
    return timing((body, launch), max(arithmetic_s, memory_s))
