"""Simulation: what a plan would do on a machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum

from supernode.machine import Kind
from supernode.plan import MemoryUse, Reserved
from supernode.simulate.range import Doubts, range_of
from supernode.simulate.reserved import Replays
from supernode.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One step of a plan on a machine, by numbers.

    All chips do the same, so times, memory and bytes are those of each chip. `compute_s` and
    `comm_s` are how long each stream was at work, `exposed_comm_s` how long a chip only waited
    for communication. `sent_bytes` are what a chip sends, by collective; `sent_by_level` divides
    them by the level of the machine they cross too, the innermost first. `critical_s` divides
    the step by what it waited for (`matmul`, `vector`, a collective), `by_kind` by the kind of
    number it rests on; each sums to `step_s`. `doubts` are the seconds of it that may be off, by
    why and by how much; `range_s` is what follows. `roofline_s` is the sum of all ops at the
    datasheet's rates and `critical_path_s` the longest chain of dependent ops: no step is shorter
    than either.

    `model_flops` are the FLOP of the matmuls (attention and convolutions too) of the one-chip
    program, a multiply-add as 2, causal attention as captured. `peak_flops_per_s` is the chip's
    datasheet rate for `dtype`, the one that most of them run in.

    `memory` are the tensors of the fullest chip, of which the memory allocator reserves
    `reserved_bytes`, with `workspace_bytes` for libraries, beside `outside_bytes` that the driver
    and the collectives' library hold.
    """

    program: str
    layout: str
    machine: str
    machine_title: str
    chips: int
    tokens: int | None
    trace: Trace
    step_s: float
    compute_s: float
    comm_s: float
    exposed_comm_s: float
    roofline_s: float
    critical_path_s: float
    critical_s: Mapping[str, float] = field(hash=False)
    by_kind: Mapping[Kind, float] = field(hash=False)
    doubts: Doubts = field(hash=False)
    sent_bytes: Mapping[str, float] = field(hash=False)
    sent_by_level: Mapping[tuple[str, str], float] = field(hash=False)
    model_flops: float
    dtype: str
    peak_flops_per_s: float
    memory: MemoryUse
    capacity_bytes: float
    outside_bytes: float
    workspace_bytes: int
    replays: Replays = field(compare=False, repr=False)
    power_w: float

    @property
    def fits(self) -> bool:
        """Whether the allocator can serve the step within what a chip has."""
        return self._reserved.fits

    @property
    def reserved_bytes(self) -> int:
        """The most that the allocator takes from the fullest chip.

        Where the step does not fit, what it would take from a chip large enough.
        """
        return self._reserved.reserved_bytes

    @property
    def taken_bytes(self) -> float:
        """All that software takes of the fullest chip."""
        return self.reserved_bytes + self.outside_bytes

    @property
    def _reserved(self) -> Reserved:
        return self.replays.on(self.capacity_bytes - self.outside_bytes, self.workspace_bytes)

    @property
    def range_s(self) -> tuple[float, float]:
        """The lowest and highest time of the step that four of five would lie between."""
        return range_of(self.step_s, self.doubts)

    @property
    def tokens_per_s(self) -> float | None:
        """All chips together; None if the number of tokens of a step was not given."""
        return None if self.tokens is None else _rate(self.tokens, self.step_s)

    @property
    def tokens_per_s_per_chip(self) -> float | None:
        """The share of one chip."""
        return None if self.tokens_per_s is None else self.tokens_per_s / self.chips

    @property
    def achieved_flops_per_s(self) -> float:
        """Model FLOP per second of all chips together."""
        return _rate(self.model_flops, self.step_s)

    @property
    def mfu(self) -> float:
        """Model FLOP utilisation: the share of the peak of all chips. No recompute is counted.

        **Source:** Chowdhery et al., "PaLM", JMLR 24, 2023, appendix B.
        """
        return self.achieved_flops_per_s / (self.chips * self.peak_flops_per_s)

    @property
    def energy_j(self) -> float:
        """The energy of one step."""
        return self.power_w * self.step_s

    @property
    def tokens_per_joule(self) -> float | None:
        """None if the number of tokens of a step was not given."""
        return None if self.tokens is None else _rate(self.tokens, self.energy_j)

    @property
    def guessed_share(self) -> float:
        """The share of the step time that rests on guessed numbers."""
        # Over their sum, which rounding keeps apart from `step_s`: never more than all of it.
        return _rate(self.by_kind.get("guessed", 0.0), fsum(self.by_kind.values()))


def _rate(amount: float, per: float) -> float:
    return amount / per if per else 0.0
