"""Fusion: chains of pointwise ops and row-wise reductions as one kernel each.

What follows from one another within a stretch of such ops (views may stand between, and what brings
values from another place, which is done elsewhere) is read once,
computed in the cores and written once: values that nothing outside reads never touch memory, and
there is one launch. In the optimizer, whose stretches hold the same few ops for every weight, a
stretch is one kernel over all of them.

Products of the same activations are one (`side_by_side.py`), and some small ops are done by the
kernel of a product or of attention (`taken_in.py`); neither ends a stretch.

**Source:** Ansel et al., "PyTorch 2", ASPLOS 2024, section 4.3; multi-tensor kernels: NVIDIA
apex, `multi_tensor_apply`.
"""

from collections.abc import Iterator, Sequence
from math import fsum

from supernode.ir import FETCH, WAIT, Op, Value
from supernode.ops import Cost, fuses, gathers, is_view, overwrites, reduces
from supernode.simulate.side_by_side import CostOf, side_by_side
from supernode.simulate.sorted_rows import AS_CAPTURED, RowsBy, sorted_rows
from supernode.simulate.taken_in import taken_in
from supernode.simulate.uses import Uses


def fused(
    uses: Uses, cost: CostOf, rows: RowsBy = AS_CAPTURED, *, sums: bool = True
) -> dict[int, Cost]:
    """What ops cost once fused, by position: all of a kernel at its last op, nothing before.

    Products add to `sums` of gradients. Ops that stay alone are not in the answer.
    """
    ops = uses.ops
    found = taken_in(uses, cost, sums=sums)
    found |= side_by_side(ops, cost)
    by_kernels = sorted_rows(uses, cost, rows)
    found |= by_kernels
    gone = {at for at, spent in found.items() if spent == Cost()} | set(by_kernels)
    for stretch in _stretches(ops, gone):
        for kernel in _kernels(ops, stretch):
            if len(kernel) > 1:
                found |= dict.fromkeys(kernel, Cost())
                found[kernel[-1]] = _cost(kernel, uses, cost)
    return found


def _stretches(ops: Sequence[Op], gone: set[int]) -> Iterator[list[int]]:
    stretch: list[int] = []
    for at, op in enumerate(ops):
        if is_view(op) or at in gone or op.name in (FETCH, WAIT):
            continue
        if fuses(op) and (not stretch or ops[stretch[-1]].site.phase == op.site.phase):
            stretch.append(at)
        else:
            yield stretch
            stretch = [at] if fuses(op) else []
    yield stretch


def _kernels(ops: Sequence[Op], stretch: list[int]) -> list[list[int]]:
    """The parts of a stretch that hang together; in the optimizer, all of it."""
    if not stretch or ops[stretch[0]].site.phase == "optimizer":
        return [stretch]
    members, parts = set(stretch), list[list[int]]()
    part_of: dict[int, list[int]] = {}
    for at in range(stretch[0], stretch[-1] + 1):
        op = ops[at]
        joined = [part_of[value.id] for value in op.inputs if value.id in part_of]
        first = part_of.get(op.inputs[0].id, []) if gathers(op) else []
        if any(reduces(ops[one]) for one in first):
            joined = joined[1:]  # other rows of it are read than the one at hand
        if at not in members and not (joined and is_view(op)):
            continue
        part = joined[0] if joined else []
        for other in joined[1:]:
            if other is not part:
                part += other
                part_of |= {key: part for key, held in part_of.items() if held is other}
                parts.remove(other)
        if not joined:
            parts.append(part)
        if at in members:
            part.append(at)
        if not overwrites(op):  # what was there before is read with it
            part_of |= {value.id: part for value in op.outputs}
    return [sorted(part) for part in parts]


def _cost(kernel: list[int], uses: Uses, cost: CostOf) -> Cost:
    ops, inside = uses.ops, set(kernel)
    within = {value.id for at in kernel for value in ops[at].outputs}
    for op in ops[kernel[0] : kernel[-1]]:
        if is_view(op) and op.inputs and op.inputs[0].id in within:
            within |= {value.id for value in op.outputs}
    read: dict[int, float] = {}
    for at in kernel:
        for place, value in enumerate(ops[at].inputs):
            if value.id not in within:
                size_bytes = _read_bytes(ops[at], place, value)
                read[value.id] = max(read.get(value.id, 0.0), size_bytes)
    written = (
        cost(ops[at]).bytes_written if overwrites(ops[at]) else value.type.size_bytes
        for at in kernel
        for value in ops[at].outputs
        if uses.readers.get(value.id, set()) - inside
    )
    spent = [cost(ops[at]) for at in kernel]
    return Cost(
        flops=fsum(each.flops for each in spent),
        bytes_read=fsum(read.values()),
        bytes_written=fsum(written),
        unit="vector",
        dtype=spent[-1].dtype,
        launches=max(each.launches for each in spent),
    )


def _read_bytes(op: Op, place: int, value: Value) -> float:
    """What `op` reads of an input."""
    size_bytes = float(value.type.size_bytes)
    if place == 0 and overwrites(op):
        return 0.0
    if place == 0 and gathers(op):
        return min(size_bytes, float(op.outputs[0].type.size_bytes))
    return size_bytes
