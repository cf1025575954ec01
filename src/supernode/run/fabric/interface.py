"""What every fabric gives: one-sided transfers and collectives between the chips of a mesh.

A group is a tuple of ranks that contains the caller's. Piece `i` of a split tensor belongs to
`group[i]`, and reductions go in the order of the tuple, so all members must pass the same one.
Two ranks may meet in any number of groups, as long as both make their calls in the same order.
One thread of a rank at a time may call its fabric.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Size, Tensor, dtype

from supernode.errors import ChipFailed, InputError, SupernodeError

Group = tuple[int, ...]
Reduction = Literal["sum", "max", "min"]


class FabricAborted(ChipFailed):
    """A rank, or the parent, stopped the run while this rank was in a call."""


class FabricTimeout(ChipFailed):
    """A wait passed its deadline; the message names the ranks that have not come."""


class FabricMismatch(SupernodeError):
    """Two ranks met in different collectives, or in the same one with other sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What one rank has sent by one kind of call.

    `sent_bytes` counts what the algorithm needs for a tensor of S bytes on n ranks, whatever the
    fabric does inside: 2(n-1)/n × S for all-reduce, (n-1)/n × S for the others, with S the larger
    of input and output; S for put and get; what goes to others for all_to_all_rows.

    **Source:** the lower bounds of Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for
    clusters of workstations", J. Parallel Distrib. Comput. 69 (2009).
    """

    calls: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A tensor that `source` sends to `target` once a step; the two know it by `key`.

    Several sources may send parts of one piece under one key: `piece` is its shape, `box` where in
    it this part is.
    """

    source: int
    target: int
    key: int
    shape: tuple[int, ...]
    dtype: dtype
    piece: tuple[int, ...] | None = None
    box: tuple[slice, ...] = ()


class Mailbox(ABC):
    """Tensors that ranks send each other in steps; what and in which order is known beforehand.

    In each step every rank sends its letters once, in the order in which they were announced, and
    receives those meant for it in any order. All ranks have ended a step before one begins the
    next.
    """

    room_bytes: int
    """What it keeps for letters to its rank, in a step and between steps."""

    @abstractmethod
    def begin(self, number: int) -> None:
        """Begins a step; `number` is the same on all ranks and larger than any before.

        After the fabric was reset (`ArenaSet.reset`) numbers may start anew from 1.
        """

    @abstractmethod
    def send(self, x: Tensor, rank: int, key: int) -> None:
        """Sends `x`, which is free at once: it does not wait for `rank` to receive it."""

    @abstractmethod
    def receive(self, rank: int, key: int) -> Tensor:
        """What `rank` has sent under `key`, contiguous, once it is there.

        Its memory is the caller's, to overwrite too, until the step ends.
        """

    @abstractmethod
    def receive_piece(self, ranks: Sequence[int], key: int) -> Tensor:
        """The piece whose parts `ranks`, all of its sources, have sent under `key`; as above."""


class Fabric(ABC):
    """The links between the chips, seen from one of them: `rank` of `world`.

    Every call may raise `FabricAborted`, `FabricTimeout` or `FabricMismatch`; an argument that
    can't be served raises `InputError` before anything is sent. Results of collectives are new
    contiguous tensors unless it is said otherwise, and have the same bits on every rank and in
    every repetition. All ranks pass operands that lie alike in memory.
    """

    rank: int
    world: int

    @abstractmethod
    def empty(
        self, shape: Size | Sequence[int], dtype: dtype, *, used_bytes: int | None = None
    ) -> Tensor:
        """A tensor in this chip's arena, at the same place in every chip's.

        All ranks of the world make the same calls of `empty` in the same order. Of a tensor that
        is larger than this chip's part of it, only the first `used_bytes` take memory.
        """

    @abstractmethod
    def peer(self, tensor: Tensor, rank: int) -> Tensor:
        """The memory of `tensor` (of the own arena, views included) in the arena of `rank`."""

    @abstractmethod
    def put(self, source: Tensor, target: Tensor, rank: int) -> None:
        """Copies `source` to where the own arena has `target`, in the arena of `rank`."""

    @abstractmethod
    def get(self, source: Tensor, rank: int, out: Tensor) -> Tensor:
        """Copies into `out` what `rank` has where the own arena has `source`."""

    @abstractmethod
    def signal(self, rank: int, slot: int, value: int) -> None:
        """Sets `slot` of `rank` to `value`, once every earlier put of this rank is visible."""

    @abstractmethod
    def wait(self, slot: int, value: int) -> None:
        """Returns when the own `slot` has reached `value` (or more)."""

    @abstractmethod
    def barrier(self, group: Group) -> None:
        """Returns when every member has called it."""

    @abstractmethod
    def mailbox(self, letters: Sequence[Letter], group: Group) -> Mailbox:
        """A mailbox for `letters`, all of which go between members of `group`.

        All ranks of the world make one in the same order, each for a group it is in; those of one
        group pass the same letters, those of another as many of the same sizes.
        """

    @abstractmethod
    def abort(self, rank: int, reason: str) -> None:
        """Makes every waiting and later call of every rank raise, with `rank` to blame."""

    @abstractmethod
    def stats(self) -> Mapping[str, Traffic]:
        """Calls and bytes so far, by name; a call for many tensors counts as one, of its kind."""

    @abstractmethod
    def all_reduce_many(
        self,
        tensors: Sequence[Tensor],
        group: Group,
        op: Reduction = "sum",
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """`all_reduce` of each tensor, with one synchronisation for those of one dtype."""

    @abstractmethod
    def reduce_scatter_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group, op: Reduction = "sum"
    ) -> list[Tensor]:
        """`reduce_scatter` of each tensor, with one synchronisation for those of one dtype."""

    @abstractmethod
    def all_gather_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group
    ) -> list[Tensor]:
        """`all_gather` of each tensor, with one synchronisation for all.

        What is gathered of a transposed matrix may be one, too.
        """

    @abstractmethod
    def all_to_all(self, x: Tensor, split_dim: int, concat_dim: int, group: Group) -> Tensor:
        """Piece `i` of `x` along `split_dim` goes to `group[i]`; what comes is joined in order."""

    @abstractmethod
    def all_to_all_rows(
        self, x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group
    ) -> Tensor:
        """`sent[i]` rows (of dim 0) of `x`, one after the other, go to `group[i]`; the `received`
        rows are joined in order. Each number is the same at both ends."""

    def all_reduce(
        self, x: Tensor, group: Group, op: Reduction = "sum", out: Tensor | None = None
    ) -> Tensor:
        """The sum, max or min over the group, in `out` where given.

        A tensor of the arena is reduced in place (without `out`) and returned. Sums of 16-bit
        floats are kept in float32 and rounded once.
        """
        return self.all_reduce_many((x,), group, op, None if out is None else (out,))[0]

    def reduce_scatter(self, x: Tensor, dim: int, group: Group, op: Reduction = "sum") -> Tensor:
        """The own piece, along `dim`, of the sum, max or min over the group."""
        return self.reduce_scatter_many((x,), (dim,), group, op)[0]

    def all_gather(self, x: Tensor, dim: int, group: Group) -> Tensor:
        """The tensors of all members, of one shape, joined along `dim` in the group's order."""
        return self.all_gather_many((x,), (dim,), group)[0]


def check_rows(x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group) -> None:
    """Refuses what `all_to_all_rows` can't serve.

    Raises:
        InputError: the numbers do not fit the tensor or the group.
    """
    rows = x.shape[0] if x.ndim else 0
    fits = len(sent) == len(group) == len(received) and min((*sent, *received)) >= 0
    if not fits or sum(sent) != rows:
        raise InputError(
            f"{list(sent)} rows sent and {list(received)} received, of a tensor of shape "
            f"{tuple(x.shape)}, by a group of {len(group)}"
        )
