"""What was measured of this host, as a machine."""

from collections.abc import Sequence
from dataclasses import replace

from supernode.calibrate.fit import Birth, kernel, plain_efficiency, transport, vector_rate
from supernode.calibrate.hardware import Hardware
from supernode.calibrate.measure import Measured, Sample, Say
from supernode.machine import Chip, HostLink, Level, Machine, Memory, Source, Sourced
from supernode.ops import Product, Scores
from supernode.simulate import sent_bytes

CALIBRATION, ESTIMATE = "calibration", "estimate"
LARGE = 1 << 22
"""What an op moves from here on comes from memory, not from a cache: enough for its rate."""
CORE_W, IDLE = 10.0, 0.3
"""The power of a core under load, and its part at rest: nobody here can read a meter."""


def calibrated(found: Measured, hardware: Hardware, *, date: str, torch: str, say: Say) -> Machine:
    """The machine of `found.chips` chips that behaves as this host did.

    `torch` is the version that was measured, `date` the day (YYYY-MM-DD).
    """
    birth = Birth(source=CALIBRATION, date=date)
    chip = _chip(found, hardware, birth, say)
    machine = Machine(
        name=f"{hardware.slug}-{found.chips}x{found.threads}",
        title=f"{hardware.model}, {found.chips} chips of {_threads(found)}",
        vendor=hardware.model.partition(" ")[0],
        chip=chip,
        chips=found.chips,
        levels=(_level(found, birth),),
        power_w=_guess(found.chips * chip.power_w.value, date),
        chip_unit=_threads(found),
        host_step_s=birth.number(found.step_s, "a step of hardly anything"),
        notes=f"Run with OMP_NUM_THREADS={found.threads} to have chips of so many threads.",
        sources=(
            Source(
                name=CALIBRATION,
                title=f"supernode calibrate on {hardware}, torch {torch}, {_threads(found)} a chip",
            ),
            Source(name=ESTIMATE, title="Estimate"),
        ),
    )
    if not found.transfers:
        return machine
    say("fitting the links")
    (level,) = machine.levels
    fit = transport(machine, found.transfers, birth)
    return replace(machine, levels=(replace(level, transport=fit),))


def _threads(found: Measured) -> str:
    return "1 thread" if found.threads == 1 else f"{found.threads} threads"


def _guess(value: float, date: str) -> Sourced:
    return Sourced(value=value, source=ESTIMATE, date=date, kind="guessed")


def _chip(found: Measured, hardware: Hardware, birth: Birth, say: Say) -> Chip:
    """First by rates alone, then kernel by kernel, each fitted on top of those rates."""
    streams = [s for s in found.ops if s.cost.unit == "vector"]
    rate = max(_moved(s) / s.seconds for s in streams if _moved(s) >= LARGE)
    launch_s = min(s.seconds for s in streams)
    peaks = _peaks(found.ops)
    chip = Chip(
        name=hardware.model,
        peak_flops_per_s={
            dtype: birth.number(peak, "the fastest product") for dtype, peak in peaks.items()
        },
        vector_flops_per_s=birth.number(vector_rate(streams), "usual of large ops"),
        matmul_efficiency=birth.number(1.0),
        memory=Memory(
            capacity_bytes=birth.number(hardware.memory_bytes / found.chips, "an even share"),
            bandwidth_bytes_per_s=birth.number(rate, "the fastest large op, all chips at work"),
            efficiency=birth.number(1.0),
        ),
        launch_overhead_s=birth.number(launch_s, "the shortest op"),
        power_w=_guess(CORE_W * found.threads, birth.date),
        idle_power_fraction=_guess(IDLE, birth.date),
        cores=birth.number(found.threads),
        overlaps=False,
        host_link=HostLink(
            bandwidth_bytes_per_s=birth.number(rate / 2, "a copy reads and writes"),
            latency_s=birth.number(launch_s),
            efficiency=birth.number(1.0),
        ),
    )
    say("fitting elementwise ops")
    kernels = dict([kernel(chip, "stream", "any", streams, birth)])
    for dtype in peaks:
        say(f"fitting products in {dtype}")
        of_dtype = [s for s in found.ops if s.cost.dtype == dtype]
        products = [s for s in of_dtype if _is_plain_product(s)]
        scores = [s for s in of_dtype if isinstance(s.cost.shape, Scores)]
        kernels |= [kernel(chip, "matmul", dtype, products, birth)]
        kernels |= [kernel(chip, "attention", dtype, scores, birth)] if scores else []
    plain = [s for s in found.ops if s.cost.unit == "matmul" and not _has_kernel(s)]
    note = "convolutions and products of experts"
    efficiency = birth.number(plain_efficiency(plain, chip), note)
    return replace(chip, kernels=kernels, matmul_efficiency=efficiency)


def _peaks(samples: Sequence[Sample]) -> dict[str, float]:
    """The fastest rate of a product, by dtype."""
    found: dict[str, float] = {}
    for s in samples:
        if s.cost.unit == "matmul":
            rate = s.cost.flops / s.seconds
            found[s.cost.dtype] = max(rate, found.get(s.cost.dtype, 0.0))
    return found


def _moved(sample: Sample) -> float:
    return sample.cost.bytes_read + sample.cost.bytes_written


def _is_plain_product(sample: Sample) -> bool:
    shape = sample.cost.shape
    return isinstance(shape, Product) and not shape.ragged


def _has_kernel(sample: Sample) -> bool:
    return isinstance(sample.cost.shape, Scores) or _is_plain_product(sample)


def _level(found: Measured, birth: Birth) -> Level:
    """The links between the chips: rates as the fastest transfer reached."""
    moved = [
        (sent_bytes(each.collective, each.data_bytes, each.size), each.seconds)
        for each in found.transfers
    ]
    note = "the fastest collective" if moved else "one chip: nobody to send to"
    rate = max((sent / time_s for sent, time_s in moved), default=1.0)
    return Level(
        name="host",
        chips=found.chips,
        bandwidth_bytes_per_s=birth.number(rate, note),
        latency_s=birth.number(min((time_s for _, time_s in moved), default=0.0), note),
        efficiency=birth.number(1.0),
        topology="switch",
        links=1,
    )
