"""Fewer, larger collectives, each as early as it can start.

Reductions move up to where their operand is complete and join their predecessors while no result
is needed yet; gathers join the first of their stretch. One collective of many values costs one
start-up instead of many, and what starts early can overlap with computing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from supernode.ir import Block, Op, Value
from supernode.partition.emit import COLLECTIVES
from supernode.partition.fuse import without_dead_ops

BUCKET_BYTES = 25 * 2**20
"""Where the ops of `main` are not a repeated block, a merged collective ends at this size.

**Source:** the bucket size of PyTorch's DistributedDataParallel, 25 MiB."""

PAD, UNPAD = "local.pad", "local.unpad"
FINISHING = ("aten.sqrt", "aten.div.Scalar", UNPAD)
"""What turns the sum over chips into the norm or the mean, or drops what filled it up."""
REDUCTIONS = ("fabric.all_reduce", "fabric.reduce_scatter")


def merge(block: Block, limit_bytes: float, sizes: Block) -> Block:
    """`block` with its collectives hoisted and merged; results are unchanged.

    `sizes` is the same block, of the chip whose sizes decide for all.
    """
    live = without_dead_ops(block)
    ops = _hoist(_sink(live.ops), {value.id for value in block.inputs})
    size_of = _Sizes(sizes)
    ops = _merge_reductions(ops, limit_bytes, size_of)
    return replace(block, ops=tuple(_merge_gathers(ops, limit_bytes, size_of)))


def _sink(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """What only follows up a reduction (a root, a division, the reduction over a second axis) down
    to its first use, so that it does not stand between two reductions."""
    reduced = _reduced(ops)
    waiting: dict[int, tuple[int, Op]] = {}
    out: list[Op] = []
    for op in ops:
        depth = max((waiting[v.id][0] for v in op.inputs if v.id in waiting), default=0)
        if op.name in (*FINISHING, *REDUCTIONS) and {v.id for v in op.inputs} <= reduced:
            waiting[op.outputs[0].id] = (depth + 1, op)
            continue
        if depth:
            out += _by_depth(waiting)
            waiting.clear()
        out.append(op)
    return (*out, *_by_depth(waiting))


def _by_depth(waiting: dict[int, tuple[int, Op]]) -> list[Op]:
    """Those that follow up one reduction, then those that follow up these, and so on."""
    return [op for _, op in sorted(waiting.values(), key=lambda item: item[0])]


def _reduced(ops: tuple[Op, ...]) -> set[int]:
    """The values that a reduction gives."""
    return {value.id for op in ops if op.name in REDUCTIONS for value in op.outputs}


def _hoist(ops: tuple[Op, ...], given: set[int]) -> list[Op]:
    """Reductions, and what fills up a piece for a collective, right behind the op that completes
    their operands; a reduction that follows up another stays."""
    reduced = _reduced(ops)
    out: list[Op] = []
    made_at: dict[int, int] = dict.fromkeys(given, -1)
    for op in ops:
        place = len(out)
        if op.name in (PAD, *REDUCTIONS) and not {v.id for v in op.inputs} <= reduced:
            place = 1 + max(made_at[value.id] for value in op.inputs)
            while place < len(out) and out[place].name in REDUCTIONS:
                place += 1
        out.insert(place, op)
        if place + 1 < len(out):
            made_at = {v: at + 1 if at >= place else at for v, at in made_at.items()}
        made_at |= {value.id: place for value in op.outputs}
    return out


def _key(op: Op) -> tuple[object, ...]:
    kind = op.args[-1] if op.name in REDUCTIONS else ""
    dtype = op.outputs[0].tensor.dtype
    return (op.name, op.args[1], kind, dtype, op.site.phase)


class _Sizes:
    """What an op reads or makes, in bytes, whichever is more; by the values of one block."""

    def __init__(self, block: Block) -> None:
        made = (value for op in block.ops for value in op.outputs)
        self._bytes = {value.id: value.type.size_bytes for value in (*block.inputs, *made)}

    def __call__(self, op: Op) -> int:
        return max(sum(self._bytes[v.id] for v in side) for side in (op.outputs, op.inputs))


@dataclass(slots=True)
class _Bucket:
    members: list[int]
    size_bytes: int
    results: set[int]


def _merge_reductions(ops: list[Op], limit_bytes: float, size_of: _Sizes) -> list[Op]:
    """Each bucket takes effect where its last member stood."""
    open_: dict[tuple[object, ...], _Bucket] = {}
    closed: list[_Bucket] = []
    for i, op in enumerate(ops):
        used = {value.id for value in op.inputs}
        for key in [key for key, bucket in open_.items() if bucket.results & used]:
            closed.append(open_.pop(key))
        if op.name not in REDUCTIONS:
            continue
        bucket = open_.get(_key(op))
        if bucket is not None and bucket.size_bytes + size_of(op) > limit_bytes:
            closed.append(open_.pop(_key(op)))
            bucket = None
        if bucket is None:
            bucket = open_[_key(op)] = _Bucket([], 0, set())
        bucket.members.append(i)
        bucket.size_bytes += size_of(op)
        bucket.results |= {value.id for value in op.outputs}
    closed += open_.values()
    return list(_replaced(ops, {b.members[-1]: b.members for b in closed}))


def _merge_gathers(ops: list[Op], limit_bytes: float, size_of: _Sizes) -> list[Op]:
    """Each bucket takes effect where its first member stood, if all operands exist there."""
    made_at = {value.id: i for i, op in enumerate(ops) for value in op.outputs}
    open_: dict[tuple[object, ...], _Bucket] = {}
    closed: list[_Bucket] = []
    for i, op in enumerate(ops):
        if op.name != "fabric.all_gather":
            continue
        bucket = open_.get(_key(op))
        if bucket is not None:
            ready = max((made_at.get(value.id, -1) for value in op.inputs), default=-1)
            if ready > bucket.members[0] or bucket.size_bytes + size_of(op) > limit_bytes:
                closed.append(open_.pop(_key(op)))
                bucket = None
        if bucket is None:
            bucket = open_[_key(op)] = _Bucket([], 0, set())
        bucket.members.append(i)
        bucket.size_bytes += size_of(op)
    closed += open_.values()
    return list(_replaced(ops, {b.members[0]: b.members for b in closed}))


def _replaced(ops: list[Op], merged: dict[int, list[int]]) -> Iterator[Op]:
    gone = {i for members in merged.values() for i in members}
    for i, op in enumerate(ops):
        if i in merged:
            yield _joined([ops[k] for k in merged[i]])
        elif i not in gone:
            yield op


def _joined(members: list[Op]) -> Op:
    first = members[0]
    assert first.name in COLLECTIVES
    if len(members) == 1:
        return first
    values = tuple(value for op in members for value in op.inputs)
    outputs: tuple[Value, ...] = tuple(value for op in members for value in op.outputs)
    if first.name == "fabric.all_reduce":
        return replace(first, args=(values, first.args[1], first.args[2]), outputs=outputs)
    dims: list[int] = []
    for op in members:
        part = op.args[2]
        assert isinstance(part, tuple)
        dims += [dim for dim in part if isinstance(dim, int)]
    args = (values, first.args[1], tuple(dims), *first.args[3:])
    return replace(first, args=args, outputs=outputs)
