"""Terms: what a step takes beyond its ops and collectives, each to be switched off by itself."""

from dataclasses import dataclass, fields, replace
from math import log, sqrt
from typing import Any

from supernode.errors import UnknownName, near_matches
from supernode.machine import Chip, Machine
from supernode.simulate.timing import Timing

EVEN = 1.0
"""The imbalance of a router that spreads rows evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Which terms count; what they amount to is in the machine's file.

    - `fusion`: chains of pointwise ops are one kernel, where the chip's software does that;
    - `graph`: ops are launched as one captured graph; without, the host launches each;
    - `host`: what the host adds to every step;
    - `overlap`: communication runs beside computation; without, one waits for the other;
    - `interference`: the cores that communication takes slow computation beside it;
    - `jitter`: a step waits for the slowest of its chips, the slower the more there are;
    - `bubble`: stages of a pipeline wait for each other; without, all that comes in is there.

    `small_at_once` is for serving stacks, whose own kernels add small arrays in one step;
    `copies` for stacks with kernels for routed rows of so many experts a token (0: rows go by an
    all-to-all), which send a token `once` to chips that hold several of them, or each copy by
    itself, for low latency; and `narrow` is how much of its bytes a row has that is cast before it
    is sent. `attention` names kernels of an
    earlier generation (`flash-1`) where the chip's file knows them.
    `imbalance` is how many rows the fullest chip's experts get, over the mean: 1 for a balanced
    router.
    """

    fusion: bool = True
    graph: bool = True
    host: bool = True
    overlap: bool = True
    interference: bool = True
    jitter: bool = True
    bubble: bool = True
    small_at_once: bool = False
    imbalance: float = EVEN
    copies: int = 0
    once: bool = True
    narrow: float = 1.0
    attention: str = ""

    def without(self, *names: str) -> "Terms":
        """These terms with some switched off; without `imbalance`, experts get even rows.

        Raises UnknownName for what is no term.
        """
        off: dict[str, Any] = {f.name: False for f in fields(self) if f.default is True}
        off["imbalance"] = EVEN
        for name in names:
            if name not in off:
                raise UnknownName(f"no term {name!r}", fix=near_matches(name, list(off)))
        return replace(self, **{name: off[name] for name in names})

    def host_s(self, machine: Machine) -> float:
        """What the host adds to a step."""
        return machine.host_step_s.value if self.host and machine.host_step_s else 0.0

    def by_generation(self, timing: Timing, chip: Chip) -> Timing:
        """An attention's time by the kernels that run it."""
        older = chip.older_attention.get(self.attention)
        return timing.longer(timing.time_s * (older.value - 1), older.kind) if older else timing

    def slowed(self, timing: Timing, chip: Chip, chips: int) -> Timing:
        """An op's time with its launch by the host and with the jitter of so many chips.

        The host launches one op after the other, unless they are a graph: no op takes less.
        """
        if not self.graph and chip.host_launch_s:
            launch = chip.host_launch_s
            timing = timing.longer(launch.value - timing.time_s, launch.kind)
        more = self.stretch(chip, chips) - 1
        kind = chip.jitter.kind if chip.jitter else "guessed"
        return timing.longer(timing.time_s * more, kind)

    def beside(self, chip: Chip) -> float:
        """How fast a chip computes while it communicates, over how fast it does alone."""
        return 1 - chip.comm_share.value if self.interference and chip.comm_share else 1.0

    def stretch(self, chip: Chip, chips: int) -> float:
        """How much longer the slowest of so many chips computes than the mean of them.

        The expected largest of n normal deviates is about sqrt(2 ln n) deviations.

        **Source:** Cramér, "Mathematical Methods of Statistics", 1946, section 28.6.
        """
        if not self.jitter or chip.jitter is None or chips < 2:
            return 1.0
        return 1 + chip.jitter.value * sqrt(2 * log(chips))
