"""Fusion: chains of pointwise ops and row-wise reductions as one kernel each.

What follows from one another within a stretch of such ops (views may stand between) is read once,
computed in the cores and written once: values that nothing outside reads never touch memory, and
there is one launch. In the optimizer, whose stretches hold the same few ops for every weight, a
stretch is one kernel over all of them.

Layers that read the same activations (queries, keys and values; gate and up) are one product, as
stacks for training and serving lay their weights side by side.

**Source:** Ansel et al., "PyTorch 2", ASPLOS 2024, section 4.3; multi-tensor kernels: NVIDIA
apex, `multi_tensor_apply`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import fsum

from supernode.ir import Op, Value
from supernode.ops import Cost, Product, fuses, is_view

CostOf = Callable[[Op], Cost]


def fused(ops: Sequence[Op], kept: Iterable[Value], cost: CostOf) -> dict[int, Cost]:
    """What ops cost once fused, by position: all of a kernel at its last op, nothing before.

    `kept` are the values that are read after `ops`. Ops that stay alone are not in the answer.
    """
    readers = _readers(ops, kept)
    found = _products(ops, cost)
    for stretch in _stretches(ops):
        for kernel in _kernels(ops, stretch):
            if len(kernel) > 1:
                found |= dict.fromkeys(kernel, Cost())
                found[kernel[-1]] = _cost(ops, kernel, readers, cost)
    return found


_LEFT = {"aten.mm": 0, "aten.addmm": 1}
"""Which operand of a product of a linear layer are the activations."""


def _products(ops: Sequence[Op], cost: CostOf) -> dict[int, Cost]:
    """Products of one left operand, in forward: all of them at the last one."""
    base: dict[int, int] = {}
    alike: dict[tuple[int, int], list[int]] = {}
    for at, op in enumerate(ops):
        if is_view(op) and op.inputs:
            base |= {out.id: base.get(op.inputs[0].id, op.inputs[0].id) for out in op.outputs}
        if op.name in _LEFT and op.site.phase == "forward":
            left = op.inputs[_LEFT[op.name]]
            alike.setdefault((base.get(left.id, left.id), left.tensor.shape[0]), []).append(at)
    found: dict[int, Cost] = {}
    for group in alike.values():
        if len(group) > 1:
            found |= dict.fromkeys(group, Cost())
            found[group[-1]] = _side_by_side([cost(ops[at]) for at in group])
    return found


def _side_by_side(costs: Sequence[Cost]) -> Cost:
    """One product whose right operands are side by side, so that the left one is read once."""
    shapes = [each.shape for each in costs if isinstance(each.shape, Product)]
    assert len(shapes) == len(costs)
    first = shapes[0]
    again = sum(each.bytes_read * s.m / (s.m + s.n) for each, s in zip(costs, shapes, strict=True))
    again -= costs[0].bytes_read * first.m / (first.m + first.n)
    return replace(
        costs[0],
        flops=fsum(each.flops for each in costs),
        bytes_read=fsum(each.bytes_read for each in costs) - again,
        bytes_written=fsum(each.bytes_written for each in costs),
        shape=replace(first, n=sum(shape.n for shape in shapes)),
    )


_OUTSIDE = -1


def _readers(ops: Sequence[Op], kept: Iterable[Value]) -> dict[int, set[int]]:
    """The positions that read each value, itself or through views; -1 is after all of them."""
    found: dict[int, set[int]] = {value.id: {_OUTSIDE} for value in kept}
    for at in range(len(ops) - 1, -1, -1):
        op = ops[at]
        through = set[int]().union(*(found.get(value.id, set()) for value in op.outputs))
        for value in op.inputs:
            found.setdefault(value.id, set()).update(through if is_view(op) else {at})
    return found


def _stretches(ops: Sequence[Op]) -> Iterator[list[int]]:
    stretch: list[int] = []
    for at, op in enumerate(ops):
        if is_view(op):
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
        if at not in members and not joined:
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
        part_of |= {value.id: part for value in op.outputs}
    return [sorted(part) for part in parts]


def _cost(ops: Sequence[Op], kernel: list[int], readers: dict[int, set[int]], cost: CostOf) -> Cost:
    inside = set(kernel)
    within = {value.id for at in kernel for value in ops[at].outputs}
    for op in ops[kernel[0] : kernel[-1]]:
        if is_view(op) and op.inputs and op.inputs[0].id in within:
            within |= {value.id for value in op.outputs}
    read = {value.id: value for at in kernel for value in ops[at].inputs if value.id not in within}
    written = (
        value for at in kernel for value in ops[at].outputs if readers.get(value.id, set()) - inside
    )
    spent = [cost(ops[at]) for at in kernel]
    return Cost(
        flops=fsum(each.flops for each in spent),
        bytes_read=float(sum(value.type.size_bytes for value in read.values())),
        bytes_written=float(sum(value.type.size_bytes for value in written)),
        unit="vector",
        dtype=spent[-1].dtype,
    )
