"""Formulas of the ops that sort rows, move them by the order of a sort, or multiply them in groups.

The op table calls their dim whole. Where each chip sorts the rows of its own tokens, the dim is
`t`, or `(t j)` where each token has `j` rows, and `t` may be split: an index then points into the
rows of the same chip.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from supernode.ir import Op, Type
from supernode.ops import Dim, Dims, Formula, Split
from supernode.ops.formula import shape_of
from supernode.ops.grouped import routed_formula as grouped_formula

Routed = Literal[
    "sort",
    "invert",
    "read sources",
    "read places",
    "read keys",
    "write sources",
    "write places",
    "write keys",
    "grouped",
]
INVERTED = "local.inverse_permutation"


def routed_formula(op: Op, what: Routed, size: int, rows: int, every: int) -> Formula:
    """The formula of `op` over `size` sorted rows, `rows` of each token.

    `every` is 1 if an index it has names rows, and `rows` if it names tokens.
    """
    sizes = {"t": size // rows} | ({"j": rows} if rows > 1 else {})
    row: Dim = tuple(sizes)
    if what == "grouped":
        return grouped_formula(op, sizes)
    if what == "sort":
        return Formula(inputs=((row,),), outputs=((row,), (row,)), sizes=sizes, whole=_JOINED)
    if what == "invert" and op.name == INVERTED:
        return Formula(inputs=((row,),), outputs=((row,),), sizes=sizes, whole=_JOINED)
    if what == "invert":
        return Formula(
            inputs=(((),), (row,), ((),)),
            outputs=((row,),),
            sizes=sizes,
            whole=_JOINED,
            unread=frozenset({0, 2}),
        )
    if what.endswith("keys"):
        return _moved(op, what, row, (), sizes)  # each row names an expert, of which all are here
    return _moved(op, what, row, ("t",) if every > 1 else row, sizes)


_JOINED = frozenset({"j"})


def _moved(op: Op, what: Routed, row: Dim, named: Dim, sizes: Mapping[str, int]) -> Formula:
    """Reads `x[index]` and writes `x[index] = y`; the other dims are free."""
    shape = shape_of(op.inputs[0])
    rest: Dims = tuple((f"i{k}",) for k in range(1, len(shape)))
    sizes = dict(sizes) | {dim[0]: n for dim, n in zip(rest, shape[1:], strict=True)}
    if what.startswith("read"):
        inputs = ((named, *rest), (row,))
        outputs = ((row, *rest),)
    else:
        written = shape_of(op.inputs[2])[1:]
        values = tuple(
            dim if n == m else () for dim, n, m in zip(rest, written, shape[1:], strict=True)
        )
        inputs = ((named, *rest), (row,), (row, *values))
        outputs = ((named, *rest),)
    return Formula(inputs=inputs, outputs=outputs, sizes=sizes, whole=_JOINED)


def inverted(op: Op, split: Split, outputs: tuple[Type, ...]) -> Op:
    """The places of a chip's own rows; what was written, and onto what, is known."""
    return replace(op, name=INVERTED, args=(op.inputs[1],), kwargs=())
