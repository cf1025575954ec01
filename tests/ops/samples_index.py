"""Samples of lookups, of losses, and of ops that read, write or order by place."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ops.calls import Sample, call
from ops.numbers import f, g, ids, mask


def _lookups() -> Iterator[Sample]:
    table, at = f(8, 6), ids(2, 4, below=8)
    yield call("aten.embedding", table, at)
    yield call("aten.embedding", table.to(torch.bfloat16), at, 3)
    yield call("aten.embedding", table, ids(4, below=8))
    yield call("local.embedding", table, at, ())
    for grad in (f(2, 4, 6), f(2, 4, 6, dtype=torch.bfloat16)):
        yield call("aten.embedding_dense_backward", grad, at, 8, -1, False)
    yield call("aten.embedding_dense_backward", f(2, 4, 6), at, 8, int(at[0, 0]), False)
    yield call("aten.embedding_dense_backward", f(2, 4, 6), at, 8, -1, True)
    yield call("local.embedding_backward", f(2, 4, 6), at, 8, -1, ())
    yield call("local.pick", f(4, 6), ids(4, below=6), ())
    yield call("local.unpick", f(4), ids(4, below=6), 6, ())
    yield call("aten.index.Tensor", f(4, 8), [ids(2, 6, below=4)])
    yield call("aten.index.Tensor", f(4, 2, 8), [None, None, ids(6, below=8)])
    yield call("aten.index.Tensor", f(4, 2, 8), [ids(2, 1, below=4), ids(6, below=2)])
    yield call("aten.index.Tensor", f(4, 2, 8), [ids(2, below=4), None, ids(2, below=8)])
    yield call(
        "aten.index.Tensor", mask(4, 8), [ids(2, 1, 1, 1, below=4), ids(1, 1, 1, 6, below=8)]
    )
    yield call("aten.index.Tensor", f(4, 8), [mask(4)])


def _losses() -> Iterator[Sample]:
    x, targets = f(8, 6).log_softmax(1), ids(8, below=6)
    ignored = targets.clone()
    ignored[::3] = -100
    for reduction in (0, 1, 2):
        for weight in (None, g(6)):
            yield from _nll(x, ignored, weight, reduction, -100)
        yield from _nll(x, targets, None, reduction, int(targets[0]))
    yield from _nll(x.to(torch.bfloat16), targets, None, 1, -100)
    yield from _nll(x[0], targets[0], None, 1, -100)
    hidden = torch.full((8,), -100)
    grad, total = f(), torch.zeros(())
    yield call("aten.nll_loss_backward", grad, x, hidden, None, 1, -100, total)
    impossible = x.clone()
    impossible[:, 0] = -float("inf")
    yield from _nll(impossible, targets.masked_fill(targets == 0, 1), None, 1, -100)
    yield from _nll(impossible, targets, None, 2, 0)


def _nll(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore: int
) -> Iterator[Sample]:
    forward = call("aten.nll_loss_forward", x, target, weight, reduction, ignore)
    yield forward
    loss, total = forward.outputs
    grad = g(*loss.shape, dtype=loss.dtype)
    yield call("aten.nll_loss_backward", grad, x, target, weight, reduction, ignore, total)


def _images_of_losses() -> Iterator[Sample]:
    x, targets = f(2, 6, 4, 2).log_softmax(1), ids(2, 4, 2, below=6)
    targets[0, 0] = -100
    for reduction in (0, 1, 2):
        for weight in (None, g(6)):
            name, args = "aten.nll_loss2d", (x, targets, weight, reduction, -100)
            forward = call(f"{name}_forward", *args)
            yield forward
            loss, total = forward.outputs
            yield call(f"{name}_backward", g(*loss.shape), *args, total)


def _element_losses() -> Iterator[Sample]:
    x, y = f(4, 8), g(4, 8)
    for reduction in (0, 1, 2):
        grad = g(4, 8) if reduction == 0 else g()
        yield call("aten.mse_loss", x, y, reduction)
        yield call("aten.mse_loss_backward", grad, x, y, reduction)
        for name in ("smooth_l1_loss", "huber_loss"):
            yield call(f"aten.{name}", x, y, reduction, 0.5)
            yield call(f"aten.{name}_backward", grad, x, y, reduction, 0.5)
        args = (0.7 * x.sigmoid(), 0.7 * y.sigmoid(), g(4, 8))
        yield call("aten.binary_cross_entropy", *args, reduction)
        yield call("aten.binary_cross_entropy_backward", grad, *args, reduction)


def _places() -> Iterator[Sample]:
    x, at = f(4, 8), ids(4, 6, below=8)
    yield call("aten.gather", x, 1, at)
    yield call("aten.gather", x, 0, ids(2, 8, below=4))
    yield call("aten.gather", x, -1, ids(2, 6, below=8))
    yield call("aten.gather", f(8), 0, ids(4, below=8))
    yield call("aten.index_select", f(4, 8, 2), 1, ids(6, below=8))
    for dim, places in ((1, at), (-1, ids(2, 4, below=8)), (0, ids(2, 8, below=4))):
        yield call("aten.scatter.src", x, dim, places, g(*places.shape))
        yield call("aten.scatter_add", x, dim, places, g(*places.shape))
        yield call("aten.scatter.value", x, dim, places, 0)
        yield call("aten.scatter.value", x, dim, places, 1.5)
        for reduce in ("sum", "amax"):
            yield call("aten.scatter_reduce.two", x, dim, places, g(*places.shape), reduce)
    for name in ("index_add", "index_copy"):
        yield call(f"aten.{name}", f(4, 8, 2), 1, torch.tensor([3, 1]), g(4, 2, 2))
    yield call("aten.bucketize.Tensor", f(4, 8), torch.linspace(-1, 1, 6))


def _puts() -> Iterator[Sample]:
    x = f(4, 2, 8)
    for accumulate in (False, True):
        yield call("aten.index_put", x, [ids(6, below=4)], g(6, 2, 8), accumulate)
        yield call("aten.index_put", x, [None, None, ids(6, below=8)], g(4, 1, 6), accumulate)
        both = [ids(6, below=4), None, ids(6, below=8)]
        yield call("aten.index_put", x, both, g(6, 2), accumulate)
        yield call("aten.index_put", x, [None, ids(2, 1, below=2), ids(4, below=8)], g(4))
    yield call("aten.index_put", x, [mask(4, 2)], g())
    yield call("aten.index_put", x, [mask(4, 2, 8)], g(1))
    yield call("aten.index_put", x, [torch.arange(4) > 1], g(2, 1, 8))


def _masked() -> Iterator[Sample]:
    x, where = f(4, 8), mask(4, 8)
    yield call("aten.masked_scatter", x, where, g(40))
    yield call("aten.masked_scatter_backward", x, where, [40])
    # Of each of four samples, three places take eight elements.
    rows, places = f(4, 6, 8), (torch.arange(24) % 2 > 0).view(4, 6, 1)
    starts = torch.arange(4) * 24
    for source, begins in ((g(4, 3, 8), None), (g(12, 8), starts), (g(20, 8), starts)):
        sizes = source.shape
        yield call("local.masked_scatter", rows, places, source, begins)
        yield call("local.masked_scatter_backward", rows, places, sizes, begins)
    yield call("aten.masked_scatter", rows, mask(4, 6, 1), g(30, 8))
    yield call("aten.masked_scatter", rows, mask(4, 6, 8), g(200))
    yield call("aten.masked_scatter_backward", rows, mask(4, 6, 1), [30, 8])


def _ordered() -> Iterator[Sample]:
    x = f(2, 4, 8)
    yield call("aten.topk", x, 2)
    yield call("aten.topk", x, 2, 1, False)
    yield call("aten.sort", x)
    yield call("aten.sort", x, 0, True)
    yield call("aten.sort.stable", ids(4, 8, below=3), stable=True, dim=0)
    yield call("aten.cumsum", f(4, 8), -1)
    yield call("aten.cumsum", ids(4, 2, 6, below=3), 0)
    for name in ("cumprod", "logcumsumexp", "cummax", "cummin"):
        yield call(f"aten.{name}", x, 1)
    yield call("aten.flip", x, [0, -1])
    yield call("aten.flip", x, [])
    yield call("aten.roll", x, [1, -3], [1, 2])
    yield call("aten.roll", x, [3])
    for name in ("tril", "triu"):
        yield call(f"aten.{name}", x, -1)
        yield call(f"aten.{name}", mask(4, 4))
    yield call("aten.glu", x, 1)
    yield call("aten.glu_backward", g(2, 4, 4), x, -1)
    yield call("aten.histc", f(4, 8), 6, -2, 2)
    yield call("aten.histc", f(4, 8), 6)
    yield call("aten.bincount", ids(8, below=4))


def _grouped() -> Iterator[Sample]:
    ends = torch.tensor([4, 4, 12, 16], dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float32):
        # Rows of pieces must be multiples of 16 bytes.
        wide, experts = f(16, 32, dtype=dtype), g(4, 32, 32, dtype=dtype)
        yield call("aten._grouped_mm", wide, experts, ends)
        yield call("aten._grouped_mm", experts, g(32, 16, dtype=dtype), ends)
        yield call("aten._grouped_mm", f(32, 16, dtype=dtype), wide, ends)
        yield call("aten._grouped_mm", f(4, 32, 32, dtype=dtype), experts)
    counts = torch.tensor([4, 0, 8, 4], dtype=torch.int32)
    yield call("local.inverse_permutation", torch.tensor([2, 0, 3, 1]))
    yield call("local.group_sizes", ends)
    theirs = torch.tensor([[4, 0], [8, 4]], dtype=torch.int32)
    yield call("local.peer_rows", counts, theirs)
    yield call("local.group_ends", theirs)
    yield call("local.expert_order", theirs)
    yield call("local.own_ends", ends, 4, ())
    yield call("local.own_rows", f(16, 8), ends, 4, ())
    yield call("local.placed_rows", f(16, 8), ends, 16, 4, ())


FAMILIES: tuple[Callable[[], Iterator[Sample]], ...] = (
    _lookups,
    _losses,
    _images_of_losses,
    _element_losses,
    _places,
    _puts,
    _masked,
    _ordered,
    _grouped,
)
