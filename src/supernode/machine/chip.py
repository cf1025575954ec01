"""Chip and Memory: how fast one chip computes and reaches its own memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from supernode.errors import UnknownName, near_matches
from supernode.ir.types import DTYPE_BYTES
from supernode.machine.fit import Fit
from supernode.machine.sourced import Sourced

VECTOR = "vector"
"""The name of the unit that computes what no matrix unit of a chip does."""

# The matrix rates that may serve a matmul of a dtype, best first. A type that a chip lacks runs
# in the next wider one (bfloat16 on a V100 in float16, float8 on a 910C in bfloat16); what has no
# rate left runs on the vector unit, as do all integers but int8.
_SERVED_BY: Mapping[str, tuple[str, ...]] = {
    "float4": ("float4", "float8", "bfloat16", "float16", "float32"),
    "float8": ("float8", "bfloat16", "float16", "float32"),
    "float16": ("float16", "bfloat16", "float32"),
    "bfloat16": ("bfloat16", "float16", "float32"),
    "tfloat32": ("tfloat32", "float32"),
    "float32": ("float32",),
    "int8": ("int8",),
}

MATRIX_DTYPES: tuple[str, ...] = tuple(_SERVED_BY)
"""The names a machine file may use in `chip.peak_flops_per_s`."""

_KNOWN_DTYPES = {*MATRIX_DTYPES, *DTYPE_BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What software holds of a chip's memory beside the tensors of a program.

    The driver hands out `usable` of the capacity: more than all of it where a data sheet says GB
    and means GiB. `context_bytes` are there before the first tensor: the driver's own, and the code
    of kernels. `communicator_bytes` are the buffers of the library of collectives, for each group
    of chips that talks together. `workspace_bytes` is the block of the allocator of tensors that
    the library of matrix products takes and keeps for each thread: one goes forward, one backward.
    """

    context_bytes: Sourced
    communicator_bytes: Sourced
    workspace_bytes: Sourced
    usable: Sourced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of one chip.

    Capacity and bandwidth are the datasheet's; streaming ops reach `efficiency` of the latter.
    Without an `overhead` software takes nothing.
    """

    capacity_bytes: Sourced
    bandwidth_bytes_per_s: Sourced
    efficiency: Sourced
    overhead: Overhead | None = None

    @property
    def usable_bytes(self) -> float:
        """What the driver hands out, all in all."""
        usable = None if self.overhead is None else self.overhead.usable
        return self.capacity_bytes.value * (1.0 if usable is None else usable.value)

    def outside_bytes(self, groups: int) -> float:
        """What is held outside of the allocator of tensors, on a chip in so many groups."""
        held = self.overhead
        if held is None:
            return 0.0
        return held.context_bytes.value + groups * held.communicator_bytes.value

    @property
    def workspace_bytes(self) -> int:
        """What libraries hold within it."""
        return 0 if self.overhead is None else int(self.overhead.workspace_bytes.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLink:
    """How one chip reaches the memory of its host, by a copy engine of its own.

    `bandwidth_bytes_per_s` is the datasheet's, of one chip, in one direction; large copies reach
    `efficiency` of it, after `latency_s`.
    """

    bandwidth_bytes_per_s: Sourced
    latency_s: Sourced
    efficiency: Sourced


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One chip, as its software sees it.

    `peak_flops_per_s` holds the dense matmul rates by dtype (a multiply-add is two operations;
    int8 counts integer operations), of which a large matmul reaches `matmul_efficiency`;
    `vector_flops_per_s` is the float32 rate outside the matrix units. `launch_overhead_s` is the
    time between two ops that follow each other in a launched graph, on the device's side.
    `power_w` is the chip under full load, and it draws `idle_power_fraction` of that at rest.

    `cores` are its matrix cores (streaming multiprocessors, cube cores): work comes in tiles, one a
    core. `kernels` hold what was measured of its kernels, by family and dtype (`matmul.bfloat16`);
    without them every op is priced by the efficiencies alone. `fuses` says that its software
    computes chains of pointwise ops in one pass, `overlaps` that it communicates beside computing
    (else the one waits for the other), `either_order` that its products in 8 bits read a matrix by
    rows or by columns. While a chip communicates, `comm_share` of its
    cores are busy with that; `host_launch_s` is what the host takes to launch an op that is in no
    captured graph; `jitter` is the spread of the chips' speed, as a part of it. `host_link` is the
    way to the memory of the host. Attention by the kernels of an earlier generation takes
    `older_attention` times as long as by those measured.
    """

    name: str
    peak_flops_per_s: Mapping[str, Sourced] = field(hash=False)
    vector_flops_per_s: Sourced
    matmul_efficiency: Sourced
    memory: Memory
    launch_overhead_s: Sourced
    power_w: Sourced
    idle_power_fraction: Sourced
    cores: Sourced | None = None
    kernels: Mapping[str, Fit] = field(default_factory=dict[str, Fit], hash=False)
    fuses: bool = False
    overlaps: bool = True
    either_order: bool = False
    comm_share: Sourced | None = None
    host_launch_s: Sourced | None = None
    jitter: Sourced | None = None
    host_link: HostLink | None = None
    older_attention: Mapping[str, Sourced] = field(default_factory=dict[str, Sourced], hash=False)

    def kernel(self, family: str, dtype: str) -> Fit | None:
        """What was measured of kernels of `family` in the type that serves `dtype` here.

        Both 16-bit floats run at one rate where a chip has both, so either stands for the other.
        """
        unit = self.unit(dtype)
        names = ("bfloat16", "float16") if unit in ("bfloat16", "float16") else (unit,)
        ordered = (unit, *(name for name in names if name != unit))
        found = (self.kernels.get(f"{family}.{name}") for name in ordered)
        return next((fit for fit in found if fit is not None), None)

    def split(self, count: int, why: str) -> "Chip":
        """One of `count` equal parts of this chip: a share of its rates, memory and power."""

        def share(number: Sourced) -> Sourced:
            return number.scaled(1 / count, why)

        overhead = self.memory.overhead
        if overhead is not None:
            overhead = replace(
                overhead,
                context_bytes=share(overhead.context_bytes),
                communicator_bytes=share(overhead.communicator_bytes),
                workspace_bytes=share(overhead.workspace_bytes),
            )
        memory = replace(
            self.memory,
            capacity_bytes=share(self.memory.capacity_bytes),
            bandwidth_bytes_per_s=share(self.memory.bandwidth_bytes_per_s),
            overhead=overhead,
        )
        link = self.host_link
        if link is not None:
            link = replace(link, bandwidth_bytes_per_s=share(link.bandwidth_bytes_per_s))
        return replace(
            self,
            peak_flops_per_s={key: share(rate) for key, rate in self.peak_flops_per_s.items()},
            vector_flops_per_s=share(self.vector_flops_per_s),
            memory=memory,
            power_w=share(self.power_w),
            cores=share(self.cores) if self.cores else None,
            host_link=link,
        )

    def unit(self, dtype: str) -> str:
        """The entry of `peak_flops_per_s` that serves a matmul of `dtype`, or `"vector"`.

        A dtype the chip lacks falls back to a wider one: float8 to bfloat16, bfloat16 to float16,
        both and tfloat32 to float32. What has no entry left, and integers other than int8, run on
        the vector unit. An unknown dtype raises UnknownName.
        """
        if dtype not in _KNOWN_DTYPES:
            raise UnknownName(f"unknown dtype {dtype!r}", fix=near_matches(dtype, _KNOWN_DTYPES))
        family = dtype[:6] if dtype.startswith(("float4", "float8")) else dtype
        served_by = _SERVED_BY.get(family, ())
        return next((entry for entry in served_by if entry in self.peak_flops_per_s), VECTOR)

    def peak(self, dtype: str) -> Sourced:
        """The dense matmul rate for `dtype`, in FLOP/s, of the unit that `unit(dtype)` names."""
        unit = self.unit(dtype)
        return self.vector_flops_per_s if unit == VECTOR else self.peak_flops_per_s[unit]
