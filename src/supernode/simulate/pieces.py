"""Collectives that go piece by piece beside the product next to them.

Where activations are gathered for a product, or what a product makes is added up and scattered,
kernels for training cut both along the tokens, in as many pieces as there are chips: one piece
moves while another is multiplied, and only the first of what is gathered, or the last of what is
added, has no product beside it. A gather that the next product does not need, and a sum of what an
earlier one made, go beside the product before them in the same way.

**Source:** NVIDIA, Transformer Engine, `te.initialize_ub` (overlap of tensor-parallel communication
with products: ring exchange, pipeline, bulk); Megatron-LM, `--tp-comm-overlap`; Wang et al.,
"Overlap communication with dependent computation via decomposition", ASPLOS 2023.
"""

from collections.abc import Sequence
from itertools import pairwise

from supernode.simulate.side_by_side import LINEAR
from supernode.simulate.uses import Uses

GATHER, SCATTER = "fabric.all_gather", "fabric.reduce_scatter"


def in_pieces(uses: Uses) -> dict[int, int]:
    """The place of each such collective, and that of the product beside it."""
    ops = uses.ops
    products = [at for at, op in enumerate(ops) if op.name in LINEAR]
    found = gathered(uses)
    axes = {ops[gather].args[1] for gather in found}
    before = _before(products, len(ops))
    for at, op in enumerate(ops):
        if op.name in (GATHER, SCATTER) and op.args[1] in axes and at not in found:
            product = before[at]
            if product is not None:
                found[at] = product
    return found


def gathered(uses: Uses) -> dict[int, int]:
    """Gathers of the activations of a product, with the first product that reads them.

    One may be of several values at once, such as tables of positions beside.
    """
    found: dict[int, int] = {}
    for at, op in enumerate(uses.ops):
        if op.name in LINEAR:
            gather = uses.making.get(op.inputs[LINEAR[op.name]].id)
            if gather is not None and uses.ops[gather].name == GATHER:
                found.setdefault(gather, at)
    return found


def _before(places: Sequence[int], count: int) -> list[int | None]:
    """The last of these places before each of `count`."""
    found: list[int | None] = [None] * count
    for place, following in pairwise([*places, count - 1]):
        found[place + 1 : following + 1] = [place] * (following - place)
    return found
