"""Marks the products that start from zeros, so that no tile of zeros is written and read for them.

A `dot` whose accumulator is a tile of zeros has the attribute `from_zero`. A `for` that carries an
accumulator from zeros through one `dot` has it too: its value is {position: that `dot`}.
"""

from ..tile.ops import Op, Region, Value, walk


def mark_zeros(region: Region) -> None:
    """Marks every `dot` and `for` of `region`."""
    ops = list(walk(region))
    uses: dict[Value, int] = {}
    for op in ops:
        for value in op.operands:
            uses[value] = uses.get(value, 0) + 1
    for op in ops:
        if op.name == "dot" and _is_zero(op.operands[2]):
            op.attrs["from_zero"] = True
        elif op.name == "for":
            products = {n: _product(op, n, uses) for n in range(len(op.results))}
            op.attrs["from_zero"] = {n: dot for n, dot in products.items() if dot is not None}


def _product(loop: Op, number: int, uses: dict[Value, int]) -> Op | None:
    """The `dot` that adds to a carried tile, if that starts as zeros and nothing else reads it."""
    block = loop.regions[0].block
    carried, yielded = block.args[1 + number], block.ops[-1].operands[number]
    dot = yielded.op
    if dot is None or dot.name != "dot" or dot not in block.ops or dot.operands[2] is not carried:
        return None
    alone = uses[carried] == 1 and uses[yielded] == 1
    return dot if alone and _is_zero(loop.operands[3 + number]) else None


def _is_zero(value: Value) -> bool:
    while value.op is not None and value.op.name == "splat":
        value = value.op.operands[0]
    op = value.op
    return op is not None and op.name == "const" and str(op.attrs["value"]) in ("0", "0.0")
