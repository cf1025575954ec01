"""The fabric between the processes of one host: loads and stores in shared memory."""

import ctypes
import math
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from supernode.errors import InputError
from supernode.run.fabric.arena import Control, map_arena
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
from supernode.run.fabric.library import DTYPES, KINDS, OPS, native_library
from supernode.run.fabric.mailbox import ArenaMailbox

DEADLINE_S = 120.0
"""Long enough for a peer that compiles its kernels; deaths are told by `abort`, in milliseconds."""
IN_PLACE_BYTES = 65536
"""From this size on, each of several arena tensors is reduced where it lies, in meetings of its
own; smaller ones go through the windows together.

**Source:** measured on 2 ranks, 2026-11: copies of that size cost what two meetings cost.
"""
HUGE_PAGE_BYTES = 2**22
"""From this size on, a new result asks for huge pages.

**Source:** measured on 2 ranks, 2026-11: all-gather to 64 MiB takes 25 ms without, 12 ms with.
"""

_ALIGN_BYTES = 64
_DTYPE_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
_OP_CODE: dict[str, int] = {op: code for code, op in enumerate(OPS)}
_ALL_REDUCE, _IN_PLACE, _REDUCE_SCATTER, _ALL_GATHER, _ALL_TO_ALL, _ALL_TO_ALL_ROWS = range(1, 7)
_SEGMENT = struct.Struct("=5q")  # base, piece_stride, rows, row_bytes, row_stride


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members:
    ranks: Group
    codes: ctypes.Array[ctypes.c_int32]
    size: int


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
        self._members: dict[Group, _Members] = {}
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
        members = self._group(group)
        self._check(self._native.sn_barrier(self._state, members.codes, members.size), 0, members)

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
        members = self._group(group)
        _check_on_host(tensors)
        _check_reduction(tensors, op)
        if out is not None:
            _check_outputs(tensors, out)
        results: list[Tensor] = []
        staged: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
        for i, x in enumerate(tensors):
            own = out is None and self._is_own(x)
            result = out[i] if out is not None else x if own else _fresh(x.shape, x.dtype)
            results.append(result)
            alone = len(tensors) == 1 or x.nbytes >= IN_PLACE_BYTES
            if own and alone and x.is_contiguous():
                self._all_reduce_in_place(x, members, op)
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
        members = self._group(group)
        _check_on_host(tensors)
        _check_reduction(tensors, op)
        dims = [_dim(x, dim) for x, dim in zip(tensors, dims, strict=True)]
        results = [
            _fresh(_divided(x, dim, members.size), x.dtype)
            for x, dim in zip(tensors, dims, strict=True)
        ]
        same: dict[torch.dtype, list[int]] = {}
        for i, x in enumerate(tensors):
            same.setdefault(x.dtype, []).append(i)
        for dtype, places in same.items():
            sources = [tensors[i].contiguous() for i in places]
            send = [_pieces(x, dims[i], members.size) for i, x in zip(places, sources, strict=True)]
            recv = [_whole(results[i]) for i in places]
            size = sum(results[i].nbytes for i in places)
            self._run(_REDUCE_SCATTER, members, send, recv, size, _DTYPE_CODE[dtype], _OP_CODE[op])
        self._count("reduce_scatter", (members.size - 1) * sum(y.nbytes for y in results))
        return results

    def all_gather_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group
    ) -> list[Tensor]:
        members = self._group(group)
        _check_on_host(tensors)
        dims = [_dim(x, dim) for x, dim in zip(tensors, dims, strict=True)]
        sources = [x.contiguous() for x in tensors]
        results = [
            _fresh(_multiplied(x.shape, dim, members.size), x.dtype)
            for x, dim in zip(sources, dims, strict=True)
        ]
        send = [_whole(x) for x in sources]
        recv = [_pieces(y, dim, members.size) for y, dim in zip(results, dims, strict=True)]
        size = sum(x.nbytes for x in sources)
        self._run(_ALL_GATHER, members, send, recv, size)
        self._count("all_gather", (members.size - 1) * size)
        return results

    def all_to_all(self, x: Tensor, split_dim: int, concat_dim: int, group: Group) -> Tensor:
        members = self._group(group)
        _check_on_host((x,))
        split_dim, concat_dim = _dim(x, split_dim), _dim(x, concat_dim)
        piece = _divided(x, split_dim, members.size)
        source = x.contiguous()
        result = _fresh(_multiplied(piece, concat_dim, members.size), x.dtype)
        send = [_pieces(source, split_dim, members.size)]
        recv = [_pieces(result, concat_dim, members.size)]
        size = source.nbytes // members.size
        self._run(_ALL_TO_ALL, members, send, recv, size)
        self._count("all_to_all", (members.size - 1) * size)
        return result

    def all_to_all_rows(
        self, x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group
    ) -> Tensor:
        members = self._group(group)
        _check_on_host((x,))
        check_rows(x, sent, received, group)
        source = x.contiguous()
        result = _fresh((sum(received), *x.shape[1:]), x.dtype)
        row_bytes = math.prod(x.shape[1:]) * x.itemsize
        sizes = ctypes.c_int64 * members.size
        status = self._native.sn_exchange(
            self._state,
            members.codes,
            members.size,
            row_bytes,
            source.data_ptr(),
            sizes(*(count * row_bytes for count in sent)),
            result.data_ptr(),
            sizes(*(count * row_bytes for count in received)),
        )
        self._check(status, _ALL_TO_ALL_ROWS, members)
        kept = sent[group.index(self.rank)]
        self._count("all_to_all_rows", (x.shape[0] - kept) * row_bytes)
        return result

    # ---- inner ----

    def _all_reduce_in_place(self, x: Tensor, members: _Members, op: str) -> None:
        status = self._native.sn_all_reduce_in_place(
            self._state,
            _DTYPE_CODE[x.dtype],
            _OP_CODE[op],
            members.codes,
            members.size,
            x.data_ptr() - self._base,
            x.nbytes,
        )
        self._check(status, _IN_PLACE, members)

    def _all_reduce_staged(
        self, pairs: list[tuple[Tensor, Tensor]], members: _Members, op: str
    ) -> None:
        sources = [x.contiguous() for x, _ in pairs]
        targets = [y if y.is_contiguous() else _fresh(y.shape, y.dtype) for _, y in pairs]
        code, size = _DTYPE_CODE[sources[0].dtype], sum(x.nbytes for x in sources)
        send, recv = [_whole(x) for x in sources], [_whole(y) for y in targets]
        self._run(_ALL_REDUCE, members, send, recv, size, code, _OP_CODE[op])
        for target, (_, result) in zip(targets, pairs, strict=True):
            if target is not result:
                result.copy_(target)

    def _run(
        self,
        kind: int,
        members: _Members,
        send: list[bytes],
        recv: list[bytes],
        piece_bytes: int,
        dtype: int = 0,
        op: int = 0,
    ) -> None:
        status = self._native.sn_collective(
            self._state,
            kind,
            dtype,
            op,
            members.codes,
            members.size,
            b"".join(send),
            b"".join(recv),
            len(send),
            piece_bytes,
        )
        self._check(status, kind, members)

    def _check(self, status: int, kind: int, members: _Members) -> None:
        if status:
            asked = f"{KINDS[kind]} over ranks {members.ranks}"
            raise failure(self._control, status, self.rank, asked)

    def _group(self, group: Group) -> _Members:
        members = self._members.get(group)
        if members is None:
            _check_group(group, self.rank, self.world)
            codes = (ctypes.c_int32 * len(group))(*group)
            members = _Members(ranks=group, codes=codes, size=len(group))
            self._members[group] = members
        return members

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


def _whole(x: Tensor) -> bytes:
    return _SEGMENT.pack(x.data_ptr(), 0, 1, x.nbytes, 0)


def _pieces(x: Tensor, dim: int, count: int) -> bytes:
    """`x`, contiguous, as `count` equal pieces along `dim`."""
    rows = math.prod(x.shape[:dim])
    row_bytes = x.nbytes // (rows * count) if rows else 0
    return _SEGMENT.pack(x.data_ptr(), row_bytes, rows, row_bytes, count * row_bytes)


def _fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    result = torch.empty(shape, dtype=dtype)
    if result.nbytes >= HUGE_PAGE_BYTES:
        native_library().sn_prefer_huge_pages(result.data_ptr(), result.nbytes)
    return result


def _dim(x: Tensor, dim: int) -> int:
    if not -x.ndim <= dim < x.ndim:
        raise InputError(f"dim {dim} of a tensor of shape {tuple(x.shape)}")
    return dim % x.ndim


def _divided(x: Tensor, dim: int, count: int) -> tuple[int, ...]:
    size = x.shape[dim]
    if size % count:
        raise InputError(
            f"dim {dim} of shape {tuple(x.shape)} does not split into {count} equal pieces"
        )
    return (*x.shape[:dim], size // count, *x.shape[dim + 1 :])


def _multiplied(shape: Sequence[int], dim: int, count: int) -> tuple[int, ...]:
    return (*shape[:dim], shape[dim] * count, *shape[dim + 1 :])


def _check_group(group: Group, rank: int, world: int) -> None:
    if rank not in group or len(set(group)) != len(group) or not set(group) <= set(range(world)):
        raise InputError(
            f"group {group}: must hold rank {rank}, and each of its ranks once, of 0 to {world - 1}"
        )


def _check_on_host(tensors: Iterable[Tensor]) -> None:
    for x in tensors:
        if not x.is_cpu:
            raise InputError(f"a tensor on {x.device}", fix="this fabric moves host tensors")


def _check_reduction(tensors: Iterable[Tensor], op: str) -> None:
    if op not in _OP_CODE:
        raise InputError(f"reduction {op!r}", fix=f"one of {', '.join(OPS)}")
    for x in tensors:
        if x.dtype not in _DTYPE_CODE:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise InputError(f"a reduction of {x.dtype}", fix=f"convert it to one of {known}")
        if x.dtype is torch.bool and op == "sum":
            raise InputError("a sum of torch.bool", fix="max is any, min is all")


def _check_outputs(tensors: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    _check_on_host(out)
    for x, y in zip(tensors, out, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            raise InputError(
                f"out is {y.dtype}{list(y.shape)} for an input of {x.dtype}{list(x.shape)}"
            )
