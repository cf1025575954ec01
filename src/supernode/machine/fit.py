"""Fit: the parameters of one mechanism, found together from measurements, or carried over."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from supernode.machine.sourced import Sourced

_ROOFLINE = ("launch_s", "memory", "sustained", "overlap", "tile_s")

KERNELS: Mapping[str, tuple[str, ...]] = {
    "matmul": (*_ROOFLINE, "split_s", "draw", "reread"),
    "grouped": (*_ROOFLINE, "group_s"),
    "attention": (*_ROOFLINE, "score_s"),
    "decode": (*_ROOFLINE, "depth_s"),
    "latent": (*_ROOFLINE, "depth_s"),
    "stream": ("launch_s", "memory", "cache_bytes", "cache_bytes_per_s"),
}
"""The parameters of each family of kernels; `simulate/cost/` says what they mean."""

MAY_HAVE: Mapping[str, tuple[str, ...]] = {
    "matmul": ("grain", "steady"),
    "attention": ("queries", "hidden"),
}
"""Those that only some chips have: processors, whose smallest tile is not of 64 rows; chips whose
power limit slows them when they go on computing; and chips whose cores take more than 128 queries,
so that what is no product hides behind what is."""

TRANSPORT = (
    *("start_s", "short_hop_s", "short_share", "middle_hop_s", "middle_share"),
    *("long_hop_s", "long_share", "pair_share", "peer_s", "exchange_start_s"),
    *("exchange_share", "exchange_long_s", "exchange_long_share"),
)
"""The parameters of the library that moves data over a level; `simulate/comm/` uses them."""

WAYS = ("tree_share", "switch_start_s", "switch_share")
"""Those of ways to reduce that only some levels have: trees, and switches which add."""

EXPERTS = ("dispatch_s", "dispatch_share", "combine_s", "combine_share", "hop_s")
"""Those of kernels that send tokens to experts and back."""

ONE_SHOT = ("start_s", "peer_s", "share")
"""Those of kernels that add small arrays in one step, as serving stacks bring them."""

ACCESS = (
    *("read_s", "read_share", "write_s", "write_share"),
    *("host_read_s", "host_read_share", "host_write_s", "host_write_share"),
)
"""Those of reads and writes of a peer's memory, and of the host's, by a chip itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Numbers by name, with how well they fit: errors on `rows` measurements held out.

    Both errors are fractions, of |predicted / measured - 1|; `rows` is 0 for what was not fitted
    here.
    """

    values: Mapping[str, Sourced] = field(hash=False)
    rows: int = 0
    median_error: float = 0.0
    p90_error: float = 0.0

    def __getitem__(self, name: str) -> float:
        return self.values[name].value

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: float) -> float:
        """The number of that name, or the default where the chip has none."""
        found = self.values.get(name)
        return default if found is None else found.value

    @property
    def any(self) -> Sourced:
        """One of its numbers: all have the same birth."""
        return next(iter(self.values.values()))

    def carried(self, machine: str) -> "Fit":
        """The same numbers for a chip or level on which nothing was measured: inferred."""
        why = f"carried over from {machine}"
        values = {name: number.scaled(1, why) for name, number in self.values.items()}
        return replace(self, values=values, rows=0, median_error=0.0, p90_error=0.0)
