"""Products of one left operand as one product.

Layers that read the same activations (queries, keys and values; gate and up, of experts too) are
one product, as stacks for training and serving lay their weights side by side.

**Source:** vLLM, `QKVParallelLinear`, `MergedColumnParallelLinear` and `FusedMoE`; Megatron-Core,
`linear_qkv` and gated `linear_fc1`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import fsum

from supernode.ir import Op
from supernode.ops import Cost, Product, is_view

CostOf = Callable[[Op], Cost]

LINEAR = {"aten.mm": 0, "aten.addmm": 1}
"""Which operand of the product of a linear layer are the activations."""
_LEFT = {**LINEAR, "aten._grouped_mm": 0}
"""The same, and of experts."""


def side_by_side(ops: Sequence[Op], cost: CostOf) -> dict[int, Cost]:
    """Such products in forward: all of them at the first one, nothing at the others."""
    base: dict[int, int] = {}
    alike: dict[object, list[int]] = {}
    for at, op in enumerate(ops):
        if is_view(op) and op.inputs:
            base |= {out.id: base.get(op.inputs[0].id, op.inputs[0].id) for out in op.outputs}
        if op.name in _LEFT and op.site.phase == "forward" and isinstance(cost(op).shape, Product):
            left = op.inputs[_LEFT[op.name]]
            ends = (
                tuple(value.id for value in op.inputs[2:]) if op.name == "aten._grouped_mm" else ()
            )
            key = (base.get(left.id, left.id), left.tensor.shape[0], left.tensor.dtype, ends)
            alike.setdefault(key, []).append(at)
    found: dict[int, Cost] = {}
    for group in alike.values():
        if len(group) > 1:
            found |= dict.fromkeys(group, Cost())
            found[group[0]] = _joined([cost(ops[at]) for at in group])
    return found


def _joined(costs: Sequence[Cost]) -> Cost:
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
        shape=replace(
            first,
            n=sum(shape.n for shape in shapes),
            gradient_cast_bytes=fsum(shape.gradient_cast_bytes for shape in shapes),
        ),
    )
