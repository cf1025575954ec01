"""What generated code needs of the world around it: a grid of chips and collectives between them.

`plan.Mesh` is a Grid and `run.fabric.Fabric` has these collectives; kernels ask for no more.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor

Kind = Literal["sum", "max", "min"]


class Grid(Protocol):
    """Chips as a grid with named axes."""

    @property
    def axes(self) -> tuple[tuple[str, int], ...]:
        """Names and sizes."""
        ...

    def axis_size(self, axis: str) -> int:
        """The number of chips along `axis`."""
        ...

    def coordinates(self, rank: int) -> dict[str, int]:
        """The position of `rank` along each axis."""
        ...

    def share(self, axis: str, units: int, at: Mapping[str, int]) -> tuple[int, int]:
        """Which of `units` the chip at `at` has along `axis`: the first of them, and how many."""
        ...

    def span(self, cuts: tuple[str, ...], at: Mapping[str, int]) -> tuple[int, int]:
        """How much of a dim so cut lies before the part of the chip at `at`, and how much in it."""
        ...

    def group(self, rank: int, axis: str) -> tuple[int, ...]:
        """The ranks that differ from `rank` along `axis` only, in order."""
        ...

    def ranges(self, size: int, cuts: Sequence[str], rank: int, part: int = 0) -> tuple[range, ...]:
        """The indices that `rank` has of a dim of `size`, cut so, in their order.

        `part` is that of a cut by time.
        """
        ...


class Collectives(Protocol):
    """The collectives of a fabric, each over a group of ranks, for many tensors at once."""

    def all_reduce_many(
        self,
        tensors: Sequence[Tensor],
        group: tuple[int, ...],
        op: Kind,
        out: Sequence[Tensor] | None = None,
    ) -> Sequence[Tensor]:
        """Each tensor combined over the group by `op`, in `out`."""
        ...

    def all_gather_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: tuple[int, ...]
    ) -> Sequence[Tensor]:
        """Each tensor joined over the group along its dim."""
        ...

    def reduce_scatter_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: tuple[int, ...], op: Kind
    ) -> Sequence[Tensor]:
        """This rank's piece, along its dim, of each tensor combined over the group."""
        ...

    def all_to_all(
        self, x: Tensor, split_dim: int, concat_dim: int, group: tuple[int, ...]
    ) -> Tensor:
        """`x` cut along one dim, piece i sent to rank i, what arrives joined along another."""
        ...

    def all_to_all_rows(
        self, x: Tensor, sent: Sequence[int], received: Sequence[int], group: tuple[int, ...]
    ) -> Tensor:
        """`sent[i]` rows of `x` go to rank i; `received[i]` come from it, joined in order."""
        ...


class Letters(Protocol):
    """What chips send each other, each tensor once a step; `run.fabric.Mailbox` is one."""

    def send(self, x: Tensor, rank: int, key: int) -> None:
        """Sends `x` to `rank` without waiting for it; `x` is free at once."""
        ...

    def receive(self, rank: int, key: int) -> Tensor:
        """What `rank` sends under `key`; its memory is the caller's until the step ends."""
        ...


class Places(Protocol):
    """What moves values between the chip's memory and the places where they live."""

    def fetch(self, source: Tensor, key: int) -> Tensor:
        """Begins to copy `source` to the chip; what it gives is there after `wait(key)`."""
        ...

    def store(self, x: Tensor, key: int, out: Tensor | None = None) -> Tensor:
        """Begins to copy `x` to `out`, or to where values under `key` live; `x` must stay as it is
        until `wait(key)`."""
        ...

    def wait(self, key: int) -> None:
        """Returns when what was begun under `key` is done."""
        ...


class AtOnce:
    """Copies right away, on the chip itself: where there is no other place."""

    def fetch(self, source: Tensor, key: int) -> Tensor:
        """A copy."""
        return source.clone()

    def store(self, x: Tensor, key: int, out: Tensor | None = None) -> Tensor:
        """A copy, in `out` if it is given."""
        return x.clone() if out is None else out.copy_(x)

    def wait(self, key: int) -> None:
        """All is done."""


class OneChip:
    """The grid of a single chip."""

    axes: tuple[tuple[str, int], ...] = ()

    def axis_size(self, axis: str) -> int:
        """One."""
        return 1

    def coordinates(self, rank: int) -> dict[str, int]:
        """No axis, no position."""
        return {}

    def share(self, axis: str, units: int, at: Mapping[str, int]) -> tuple[int, int]:
        """All of them."""
        return 0, units

    def span(self, cuts: tuple[str, ...], at: Mapping[str, int]) -> tuple[int, int]:
        """All of it."""
        return 0, 1

    def group(self, rank: int, axis: str) -> tuple[int, ...]:
        """The chip itself."""
        return (rank,)

    def ranges(self, size: int, cuts: Sequence[str], rank: int, part: int = 0) -> tuple[range, ...]:
        """All of them."""
        assert not cuts
        return (range(size),)
