"""What is gathered for products in few bits, in training: it is cast first, where it lies.

Each chip casts the tokens it has, and what is sent is narrow: activations before the first product
of a tensor-parallel layer, and the gradient of the result of its last, whose tokens the sum behind
that product has scattered. So the chips of the axis share a cast.

**Source:** NVIDIA, Transformer Engine 2.9, `LayerNormLinear` and `grad_output_preprocess`
(quantised before `gather_along_first_dim`, which sends float8, MXFP8 and NVFP4).
"""

from collections.abc import Iterator

from supernode.ops import Product
from supernode.simulate.pieces import GATHER, SCATTER, gathered
from supernode.simulate.side_by_side import LINEAR, CostOf
from supernode.simulate.uses import Uses


def gathered_narrow(uses: Uses, cost: CostOf) -> Iterator[tuple[int, int, float]]:
    """Gathers of what only products in few bits read: the place of each, that of the first such
    product, and the share of the bytes that is sent.

    They are those of axes along which a left operand is gathered; weights are gathered as they are.
    """
    axes = {uses.ops[at].args[1] for at in gathered(uses)}
    for at, op in enumerate(uses.ops):
        if op.name != GATHER or op.args[1] not in axes:
            continue
        all_bytes = sent_bytes = 0.0
        first: list[int] = []
        for value in op.outputs:
            reading = uses.readers.get(value.id, set[int]())
            share = max((_narrow(place, uses, cost) for place in reading), default=1.0)
            all_bytes += value.type.size_bytes
            sent_bytes += value.type.size_bytes * share
            first += [min(reading)] if share < 1 else []
        if first:
            yield at, min(first), sent_bytes / all_bytes


def _narrow(place: int, uses: Uses, cost: CostOf) -> float:
    """How much of their bytes the operands of a product have once they are cast."""
    shape = cost(uses.ops[place]).shape if place >= 0 else None
    return shape.narrow if isinstance(shape, Product) else 1.0


def scattered(uses: Uses) -> Iterator[tuple[int, int]]:
    """Sums that scatter the result of a forward product: the place of each, and the product's."""
    for at, op in enumerate(uses.ops):
        if op.name == SCATTER and op.site.phase == "forward" and len(op.inputs) == 1:
            product = uses.making.get(op.inputs[0].id)
            if product is not None and uses.ops[product].name in LINEAR:
                yield at, product
