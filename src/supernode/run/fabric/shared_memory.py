"""The fabric between the processes of one host: loads and stores in shared memory."""

import math
import mmap
from collections.abc import Mapping, Sequence

import torch
from torch import Size, Tensor

from supernode.errors import InputError
from supernode.run.fabric.arena import Control, map_arena
from supernode.run.fabric.checks import (
    check_on_host,
    check_outputs,
    check_reduction,
    dim_of,
    divided,
    multiplied,
)
from supernode.run.fabric.failure import failure
from supernode.run.fabric.interface import (
    Fabric,
    Group,
    Letter,
    Mailbox,
    Reduction,
    Traffic,
    check_rows,
)
from supernode.run.fabric.mailbox import ArenaMailbox
from supernode.run.fabric.meetings import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    REDUCE_SCATTER,
    Meetings,
    Members,
    fresh,
    pieces,
    whole,
)

DEADLINE_S = 120.0
"""Long enough for a peer that compiles its kernels; deaths are told by `abort`, in milliseconds."""
IN_PLACE_BYTES = 65536
"""From this size on, each of several arena tensors is reduced where it lies, in meetings of its
own; smaller ones go through the windows together.

**Source:** measured on 2 ranks, 2026-11: copies of that size cost what two meetings cost.
"""
_ALIGN_BYTES = 64


class SharedMemoryFabric(Fabric):
    """One rank's view of an `ArenaSet`; see `Fabric` for what the calls do."""

    def __init__(
        self, control_fd: int, arena_fds: Sequence[int], rank: int, deadline_s: float
    ) -> None:
        self.rank, self.world = rank, len(arena_fds)
        self._arenas = [torch.frombuffer(map_arena(fd), dtype=torch.uint8) for fd in arena_fds]
        self._base = self._arenas[rank].data_ptr()
        bases = [arena.data_ptr() for arena in self._arenas]
        self._control = Control(control_fd, rank, bases, deadline_s)
        self._native, self._state = self._control.native, self._control.state
        self._slots = self._native.sn_slots()
        self._next = 2 * self._control.window_bytes
        self._meetings = Meetings(self._control, rank, self._base)
        self._traffic: dict[str, list[int]] = {}

    @classmethod
    def attach(
        cls, fds: Sequence[int], rank: int, *, deadline_s: float = DEADLINE_S
    ) -> "SharedMemoryFabric":
        """The fabric of `rank` over the inherited `ArenaSet.fds`.

        A call that waits longer than `deadline_s` for another rank raises `FabricTimeout`.
        """
        control, *arenas = fds
        if not 0 <= rank < len(arenas):
            raise InputError(f"rank {rank}: these arenas are for ranks 0 to {len(arenas) - 1}")
        return cls(control, arenas, rank, deadline_s)

    # ---- one-sided ----

    def empty(
        self, shape: Size | Sequence[int], dtype: torch.dtype, *, used_bytes: int | None = None
    ) -> Tensor:
        arena, start = self._arenas[self.rank], self._next
        size = math.prod(shape) * dtype.itemsize
        end = start + size + -size % _ALIGN_BYTES
        if end > len(arena):
            raise InputError(
                f"the arena of rank {self.rank} is full: {size} bytes asked, "
                f"{len(arena) - start} of {len(arena)} left",
                asked=f"empty({tuple(shape)}, {dtype})",
                fix="create the ArenaSet with more arena_bytes",
            )
        self._next = end
        flat = arena[start : start + size]
        # A first touch by the owner puts the pages into its own part of the memory (NUMA).
        flat[: used_bytes : mmap.PAGESIZE].sum()
        return flat.view(dtype).view(tuple(shape))

    def peer(self, tensor: Tensor, rank: int) -> Tensor:
        self._check_rank(rank)
        if not self._is_own(tensor):
            raise InputError(
                f"a tensor of shape {tuple(tensor.shape)} outside the arena of rank {self.rank}",
                fix="make it with fabric.empty",
            )
        storage = self._arenas[rank].untyped_storage()
        there = torch.empty(0, dtype=tensor.dtype)
        return there.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())

    def put(self, source: Tensor, target: Tensor, rank: int) -> None:
        self.peer(target, rank).copy_(source.detach())
        self._count("put", source.nbytes)

    def get(self, source: Tensor, rank: int, out: Tensor) -> Tensor:
        out.copy_(self.peer(source, rank))
        self._count("get", out.nbytes)
        return out

    def signal(self, rank: int, slot: int, value: int) -> None:
        self._check_rank(rank)
        self._check_slot(slot)
        self._native.sn_signal(self._state, rank, slot, value)

    def wait(self, slot: int, value: int) -> None:
        self._check_slot(slot)
        status = self._native.sn_wait(self._state, slot, value)
        if status:
            has = self._native.sn_slot_value(self._state, slot)
            late = f"slot {slot} has {has}, not {value},"
            raise failure(self._control, status, self.rank, f"wait({slot}, {value})", late)

    def mailbox(self, letters: Sequence[Letter], group: Group) -> Mailbox:
        return ArenaMailbox(self, letters, group)

    # ---- meetings ----

    def barrier(self, group: Group) -> None:
        self._meetings.barrier(self._meetings.group(group))

    def abort(self, rank: int, reason: str) -> None:
        self._control.abort(rank, reason)

    def stats(self) -> Mapping[str, Traffic]:
        return {
            name: Traffic(calls=calls, sent_bytes=sent)
            for name, (calls, sent) in self._traffic.items()
        }

    def all_reduce_many(
        self,
        tensors: Sequence[Tensor],
        group: Group,
        op: Reduction = "sum",
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        members = self._meetings.group(group)
        check_on_host(tensors)
        check_reduction(tensors, op)
        if out is not None:
            check_outputs(tensors, out)
        results: list[Tensor] = []
        staged: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
        for i, x in enumerate(tensors):
            own = out is None and self._is_own(x)
            result = out[i] if out is not None else x if own else fresh(x.shape, x.dtype)
            results.append(result)
            alone = len(tensors) == 1 or x.nbytes >= IN_PLACE_BYTES
            if own and alone and x.is_contiguous():
                self._meetings.reduce_in_place(x, members, op)
            else:
                staged.setdefault(x.dtype, []).append((x, result))
        for pairs in staged.values():
            self._all_reduce_staged(pairs, members, op)
        sent = 2 * (members.size - 1) * sum(x.nbytes for x in tensors) // members.size
        self._count("all_reduce", sent)
        return results

    def reduce_scatter_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group, op: Reduction = "sum"
    ) -> list[Tensor]:
        members = self._meetings.group(group)
        check_on_host(tensors)
        check_reduction(tensors, op)
        dims = [dim_of(x, dim) for x, dim in zip(tensors, dims, strict=True)]
        results = [
            fresh(divided(x, dim, members.size), x.dtype)
            for x, dim in zip(tensors, dims, strict=True)
        ]
        same: dict[torch.dtype, list[int]] = {}
        for i, x in enumerate(tensors):
            same.setdefault(x.dtype, []).append(i)
        for dtype, places in same.items():
            sources = [tensors[i].contiguous() for i in places]
            send = [pieces(x, dims[i], members.size) for i, x in zip(places, sources, strict=True)]
            recv = [whole(results[i]) for i in places]
            size = sum(results[i].nbytes for i in places)
            self._meetings.reduce(REDUCE_SCATTER, members, send, recv, size, dtype, op)
        self._count("reduce_scatter", (members.size - 1) * sum(y.nbytes for y in results))
        return results

    def all_gather_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group
    ) -> list[Tensor]:
        members = self._meetings.group(group)
        check_on_host(tensors)
        dims = [dim_of(x, dim) for x, dim in zip(tensors, dims, strict=True)]
        # A transposed matrix is joined as it lies in memory: in no copy, along the other dim.
        turned = [_is_transposed(x) for x in tensors]
        sources = [x.t() if t else x.contiguous() for x, t in zip(tensors, turned, strict=True)]
        dims = [1 - dim if t else dim for dim, t in zip(dims, turned, strict=True)]
        results = [
            fresh(multiplied(x.shape, dim, members.size), x.dtype)
            for x, dim in zip(sources, dims, strict=True)
        ]
        send = [whole(x) for x in sources]
        recv = [pieces(y, dim, members.size) for y, dim in zip(results, dims, strict=True)]
        size = sum(x.nbytes for x in sources)
        self._meetings.move(ALL_GATHER, members, send, recv, size, turned=any(turned))
        self._count("all_gather", (members.size - 1) * size)
        return [y.t() if t else y for y, t in zip(results, turned, strict=True)]

    def all_to_all(self, x: Tensor, split_dim: int, concat_dim: int, group: Group) -> Tensor:
        members = self._meetings.group(group)
        check_on_host((x,))
        split_dim, concat_dim = dim_of(x, split_dim), dim_of(x, concat_dim)
        piece = divided(x, split_dim, members.size)
        source = x.contiguous()
        result = fresh(multiplied(piece, concat_dim, members.size), x.dtype)
        send = [pieces(source, split_dim, members.size)]
        recv = [pieces(result, concat_dim, members.size)]
        size = source.nbytes // members.size
        self._meetings.move(ALL_TO_ALL, members, send, recv, size)
        self._count("all_to_all", (members.size - 1) * size)
        return result

    def all_to_all_rows(
        self, x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group
    ) -> Tensor:
        members = self._meetings.group(group)
        check_on_host((x,))
        check_rows(x, sent, received, group)
        source = x.contiguous()
        result = fresh((sum(received), *x.shape[1:]), x.dtype)
        self._meetings.exchange(source, sent, result, received, members)
        kept = sent[group.index(self.rank)]
        self._count("all_to_all_rows", (x.shape[0] - kept) * math.prod(x.shape[1:]) * x.itemsize)
        return result

    # ---- inner ----

    def _all_reduce_staged(
        self, pairs: list[tuple[Tensor, Tensor]], members: Members, op: str
    ) -> None:
        sources = [x.contiguous() for x, _ in pairs]
        targets = [y if y.is_contiguous() else fresh(y.shape, y.dtype) for _, y in pairs]
        size = sum(x.nbytes for x in sources)
        send, recv = [whole(x) for x in sources], [whole(y) for y in targets]
        self._meetings.reduce(ALL_REDUCE, members, send, recv, size, sources[0].dtype, op)
        for target, (_, result) in zip(targets, pairs, strict=True):
            if target is not result:
                result.copy_(target)

    def _is_own(self, x: Tensor) -> bool:
        return x.untyped_storage().data_ptr() == self._base

    def _count(self, name: str, sent_bytes: int) -> None:
        count = self._traffic.setdefault(name, [0, 0])
        count[0] += 1
        count[1] += sent_bytes

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < self.world:
            raise InputError(f"rank {rank}: the world has ranks 0 to {self.world - 1}")

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self._slots:
            raise InputError(f"slot {slot}: a rank has slots 0 to {self._slots - 1}")


def _is_transposed(x: Tensor) -> bool:
    return x.ndim == 2 and not x.is_contiguous() and x.t().is_contiguous()
