"""Terms: what a step takes beyond its ops and collectives, each to be switched off by itself."""

from dataclasses import dataclass, fields, replace
from math import log, sqrt
from typing import Any

from supernode.errors import UnknownName, near_matches
from supernode.machine import Chip, Machine
from supernode.simulate.sorted_rows import AS_CAPTURED, RowsBy
from supernode.simulate.timing import Timing

COUNTED = 50
"""So many launches the host is behind where it has read how many rows there are: the chip waits.

**Source:** NVIDIA, Megatron-Bridge, `skills/nemo-mbridge-perf-moe-comm-overlap`, profile of
2026-07-25 on 16 H100: of 24.71 s the chip was at work for 22.82 s, over 64 microbatches of 48
layers, 0.6 ms each; of the 12 µs that a launch takes there these are 50."""
EVEN = 1.0
"""The imbalance of a router that spreads rows evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """How the software of a chip handles the ops of a plan, whatever they take.

    With `fusion`, chains of ops are one kernel, products add to `sums` of gradients, and `rows` of
    tokens are handled as it says; with `overlap`, communication has a stream of its own, and copies
    have one; with `pieces`, some goes piece by piece beside a product (`pieces.py`). Without a
    `bubble` no stage waits for what another one sends, without `prefetch` backward gathers weights
    where it stands.
    """

    fusion: bool
    overlap: bool
    bubble: bool = True
    prefetch: bool = True
    rows: RowsBy = AS_CAPTURED
    pieces: bool = False
    sums: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Which terms count; what they amount to is in the machine's file.

    - `fusion`: chains of pointwise ops are one kernel, where the chip's software does that;
    - `graph`: ops are launched as one captured graph; without, the host launches each;
    - `host`: what the host adds to every step;
    - `overlap`: communication runs beside computation; without, one waits for the other;
    - `interference`: the cores that communication takes slow computation beside it;
    - `jitter`: a step waits for the slowest of its chips, the slower the more there are;
    - `bubble`: stages of a pipeline wait for each other; without, all that comes in is there;
    - `prefetch`: backward gathers the weights of the next layer beside the one at hand; without,
      once that is done (FSDP's `BACKWARD_POST`).

    `small_at_once` is for serving stacks, whose own kernels add small arrays in one step;
    `copies` for stacks with kernels for routed rows of so many experts a token (0: rows go by an
    all-to-all), which send a token `once` to chips that hold several of them, or each copy by
    itself, for low latency; and `narrow` is how much of its bytes a row has that is cast before it
    is sent. With `pieces`, activations are gathered for a product, or added up behind it, piece by
    piece beside it (`pieces.py`). With `sums_apart`, gradients of microbatches are added by kernels
    of their own, not by the products that make them. `attention` names kernels of an
    earlier generation (`flash-1`) where the chip's file knows them.
    `permuted` says that rows of so many experts a token are sorted and added up by kernels made
    for that, or where there are `copies` by those that send them; `paired` that microbatches go in
    pairs, of which one computes while rows of the other are on their way (it takes two or more);
    `counted` that the host reads how many rows there are before it goes on, once a layer.
    `imbalance` is how many rows the fullest chip's experts get, over the mean, for which all others
    wait, in products and in transfers of rows: 1 for a balanced router.
    """

    fusion: bool = True
    graph: bool = True
    host: bool = True
    overlap: bool = True
    interference: bool = True
    jitter: bool = True
    bubble: bool = True
    prefetch: bool = True
    small_at_once: bool = False
    imbalance: float = EVEN
    copies: int = 0
    once: bool = True
    narrow: float = 1.0
    permuted: int = 0
    paired: bool = False
    counted: bool = False
    attention: str = ""
    pieces: bool = False
    sums_apart: bool = False

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

    def handling(self, chip: Chip) -> Handling:
        """How a chip handles ops under these terms, by what its software can."""
        overlap = self.overlap and chip.overlaps
        return Handling(
            fusion=self.fusion and chip.fuses,
            overlap=overlap,
            bubble=self.bubble,
            prefetch=self.prefetch,
            rows=RowsBy(permuted=self.permuted, sent=self.copies > 0, paired=self.paired),
            pieces=self.pieces and overlap,
            sums=not self.sums_apart,
        )

    def host_s(self, machine: Machine) -> float:
        """What the host adds to a step."""
        return machine.host_step_s.value if self.host and machine.host_step_s else 0.0

    def by_generation(self, timing: Timing, chip: Chip) -> Timing:
        """An attention's time by the kernels that run it."""
        older = chip.older_attention.get(self.attention)
        return timing.longer(timing.time_s * (older.value - 1), older.kind) if older else timing

    def slowed(self, timing: Timing, chip: Chip, chips: int, launches: float = 1.0) -> Timing:
        """An op's time with its `launches` by the host and with the jitter of so many chips.

        The host launches one after the other, unless they are a graph: no op takes less.
        """
        if not self.graph and chip.host_launch_s:
            launch = chip.host_launch_s
            timing = timing.longer(launches * launch.value - timing.time_s, launch.kind)
        more = self.stretch(chip, chips) - 1
        kind = chip.jitter.kind if chip.jitter else "guessed"
        return timing.longer(timing.time_s * more, kind)

    def behind(self, timing: Timing, chip: Chip) -> Timing:
        """A sending of rows to experts with its share of the wait for a host that counts them: one
        of two, in forward and in backward."""
        if not self.counted or chip.host_launch_s is None:
            return timing
        return timing.longer(COUNTED / 2 * chip.host_launch_s.value, chip.host_launch_s.kind)

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
