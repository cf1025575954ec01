"""The fabric between the GPUs of one host: collectives by NCCL, the rest in the host's arenas."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Size, Tensor

from supernode.run.fabric.interface import (
    Fabric,
    Group,
    Letter,
    Mailbox,
    Reduction,
    Traffic,
    check_rows,
)
from supernode.run.fabric.mailbox import DistributedMailbox

_OPS: dict[str, dist.ReduceOp.RedOpType] = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}
_DEADLINE = timedelta(seconds=120)


class NcclFabric(Fabric):
    """One rank's view of the GPUs `0 … chips - 1`; `shared` is its view of the host's arenas."""

    def __init__(self, shared: Fabric, chips: int, device: str) -> None:
        self._shared, self._device = shared, device
        self.rank, self.world = shared.rank, chips
        self._groups: dict[Group, dist.ProcessGroup] = {}
        self._traffic: dict[str, Traffic] = {}

    @classmethod
    def attach(cls, shared: Fabric, chips: int, *, backend: str = "nccl") -> "NcclFabric":
        """Joins the other chips; all of them must call it. `backend` is any of torch's."""
        everyone = tuple(range(chips))
        port = shared.empty((1,), torch.int64)
        is_first = shared.rank == 0
        if not is_first:
            shared.barrier(everyone)
        number = 0 if is_first else int(shared.peer(port, 0)[0])
        store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            "127.0.0.1", number, None, is_first, _DEADLINE, wait_for_workers=False
        )
        if is_first:
            port[0] = store.port
            shared.barrier(everyone)
        dist.init_process_group(backend, store=store, rank=shared.rank, world_size=chips)
        return cls(shared, chips, "cuda" if backend == "nccl" else "cpu")

    # ---- one-sided: between the arenas ----

    def empty(
        self, shape: Size | Sequence[int], dtype: torch.dtype, *, used_bytes: int | None = None
    ) -> Tensor:
        return self._shared.empty(shape, dtype, used_bytes=used_bytes)

    def peer(self, tensor: Tensor, rank: int) -> Tensor:
        return self._shared.peer(tensor, rank)

    def put(self, source: Tensor, target: Tensor, rank: int) -> None:
        self._shared.put(source, target, rank)

    def get(self, source: Tensor, rank: int, out: Tensor) -> Tensor:
        return self._shared.get(source, rank, out)

    def signal(self, rank: int, slot: int, value: int) -> None:
        self._shared.signal(rank, slot, value)

    def wait(self, slot: int, value: int) -> None:
        self._shared.wait(slot, value)

    def barrier(self, group: Group) -> None:
        self._shared.barrier(group)

    def mailbox(self, letters: Sequence[Letter], group: Group) -> Mailbox:
        return DistributedMailbox(letters, self.rank, self._device)

    def abort(self, rank: int, reason: str) -> None:
        self._shared.abort(rank, reason)

    def stats(self) -> Mapping[str, Traffic]:
        return {**self._shared.stats(), **self._traffic}

    # ---- collectives ----

    def all_reduce_many(
        self,
        tensors: Sequence[Tensor],
        group: Group,
        op: Reduction = "sum",
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        members = self._group(group)
        results = [x.clone(memory_format=torch.contiguous_format) for x in tensors]
        for result in results:
            dist.all_reduce(result, _OPS[op], members)
        self._count("all_reduce", 2 * _sent(results, group))
        if out is None:
            return results
        return [given.copy_(result) for given, result in zip(out, results, strict=True)]

    def reduce_scatter_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group, op: Reduction = "sum"
    ) -> list[Tensor]:
        members = self._group(group)
        results: list[Tensor] = []
        for x, dim in zip(tensors, dims, strict=True):
            pieces = [piece.contiguous() for piece in x.chunk(len(group), dim)]
            result = torch.empty_like(pieces[0])
            dist.reduce_scatter(result, pieces, _OPS[op], members)
            results.append(result)
        self._count("reduce_scatter", _sent(tensors, group))
        return results

    def all_gather_many(
        self, tensors: Sequence[Tensor], dims: Sequence[int], group: Group
    ) -> list[Tensor]:
        members = self._group(group)
        results: list[Tensor] = []
        for x, dim in zip(tensors, dims, strict=True):
            pieces = [x.new_empty(x.shape) for _ in group]
            dist.all_gather(pieces, x.contiguous(), members)
            results.append(torch.cat(pieces, dim))
        self._count("all_gather", _sent(results, group))
        return results

    def all_to_all(self, x: Tensor, split_dim: int, concat_dim: int, group: Group) -> Tensor:
        members = self._group(group)
        pieces = torch.cat([piece[None] for piece in x.chunk(len(group), split_dim)])
        arrived = torch.empty_like(pieces)
        dist.all_to_all_single(arrived, pieces, group=members)
        self._count("all_to_all", _sent((x,), group))
        return torch.cat(arrived.unbind(), concat_dim)

    def all_to_all_rows(
        self, x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group
    ) -> Tensor:
        check_rows(x, sent, received, group)
        members = self._group(group)
        result = x.new_empty((sum(received), *x.shape[1:]))
        dist.all_to_all_single(result, x.contiguous(), list(received), list(sent), members)
        kept = sent[group.index(self.rank)]
        self._count("all_to_all_rows", x.nbytes - x[:kept].nbytes)
        return result

    def _group(self, group: Group) -> dist.ProcessGroup:
        if group not in self._groups:
            made = dist.new_group(list(group), use_local_synchronization=True)
            assert isinstance(made, dist.ProcessGroup)
            self._groups[group] = made
        return self._groups[group]

    def _count(self, name: str, sent_bytes: int) -> None:
        before = self._traffic.get(name, Traffic(calls=0, sent_bytes=0))
        self._traffic[name] = Traffic(
            calls=before.calls + 1, sent_bytes=before.sent_bytes + sent_bytes
        )


def _sent(whole: Iterable[Tensor], group: Group) -> int:
    """(n - 1) / n of the larger side, as `Traffic` counts it."""
    return (len(group) - 1) * sum(x.nbytes for x in whole) // len(group)
