"""Grouped matrix products: tokens sorted by expert, each group times its expert's matrix.

`offs` holds where each group ends, in the whole list of tokens, so tokens and groups stay whole,
unless each chip has sorted its own tokens.
"""

from collections.abc import Mapping
from dataclasses import replace

from supernode.ir import Op
from supernode.ops.formula import Dim, Formula, bare, from_template, shape_of
from supernode.ops.row import Cost, Row, linear_in, nonlinear, same, streaming, traffic
from supernode.ops.shape import Product

_FORMS: dict[tuple[int, ...], str] = {
    (2, 3): "{t} k, e k n, e -> {t} n",
    (3, 2): "e m k, k {t}, e -> m {t}",
    (2, 2): "m {t}, {t} n, e -> e m n",
}


ALIGN_BYTES = 16
"""Torch's kernels take rows of matrices that begin at multiples of so many bytes."""


def _ranks(op: Op) -> tuple[int, ...]:
    return tuple(len(shape_of(value)) for value in op.inputs[:2])


def _formula(op: Op) -> Formula:
    return aligned(op, _products(op))


def aligned(op: Op, formula: Formula) -> Formula:
    """The same with `m`, `n` and `k` counted in units of `ALIGN_BYTES`, so that rows of their parts
    are aligned as those of the whole are."""
    type_ = op.inputs[0].tensor
    unit = ALIGN_BYTES * type_.numel // type_.size_bytes
    units = {f: n // unit for f, n in formula.sizes.items() if f in "mnk" and n % unit == 0}

    def counted(dim: Dim) -> Dim:
        return tuple(part for f in dim for part in ((f, f"{f}16") if f in units else (f,)))

    return replace(
        formula,
        inputs=tuple(tuple(map(counted, dims)) for dims in formula.inputs),
        outputs=tuple(tuple(map(counted, dims)) for dims in formula.outputs),
        sizes={**formula.sizes, **units, **{f"{f}16": unit for f in units}},
        whole=formula.whole | {f"{f}16" for f in units},
    )


def _products(op: Op) -> Formula:
    """By rank: rows in groups, columns in groups, or the k of each product in groups."""
    if _ranks(op) == (3, 3):
        return from_template(op, "e m k, e k n -> e m n")
    return from_template(op, _FORMS[_ranks(op)].format(t="t"), whole="t e")


def routed_formula(op: Op, sizes: Mapping[str, int]) -> Formula:
    """The formula where each chip has groups of its own: its rows `t`, or `(t j)` for `j` rows of
    each token; `offs` is then a partial sum over chips."""
    form = _FORMS[_ranks(op)].format(t="(t j)" if "j" in sizes else "t")
    formula = from_template(op, form, whole="j e", sizes=sizes)
    return replace(aligned(op, formula), partial={"t": (2,)})


def _cost(op: Op) -> Cost:
    """Each token meets the matrix of one expert."""
    a, b = (shape_of(value) for value in op.inputs[:2])
    products = a[0] if len(a) == 3 == len(b) else 1
    flops = 2.0 * products * a[-2] * a[-1] * b[-1]
    read, written = traffic(op)
    groups = op.inputs[2].tensor.shape[0] if products == 1 else products
    shape = _shape(a, b, groups)
    return Cost(flops, read, written, "matmul", op.outputs[0].tensor.dtype, shape)


def _shape(a: tuple[int, ...], b: tuple[int, ...], groups: int) -> Product:
    """What is ragged, on average: rows of the left, columns of the right, or what is summed."""
    (m, k), n = a[-2:], b[-1]
    ragged = len(a) == 2 or len(b) == 2
    if len(a) == len(b) == 2:
        return Product(groups=groups, m=m, n=n, k=k / groups, ragged=ragged)
    if len(b) == 2:
        return Product(groups=groups, m=m, n=n / groups, k=k, ragged=ragged)
    return Product(groups=groups, m=m / groups if ragged else m, n=n, k=k, ragged=ragged)


def _counted(name: str, note: str) -> Row:
    """What is done with the numbers and places of the rows of one chip."""
    return Row(
        name=f"local.{name}",
        formula=bare,
        cost=streaming(1),
        linear=nonlinear,
        local=same,
        note=note,
    )


def _taken(name: str, note: str) -> Row:
    """Rows copied out of all, or into zeros."""

    def spent(op: Op) -> Cost:
        written = op.outputs[0].type.size_bytes
        return Cost(0.0, min(written, op.inputs[0].type.size_bytes), written, "vector")

    return replace(_counted(name, note), cost=spent)


ROWS = [
    _counted("inverse_permutation", "y[x[i]] = i, of the rows a chip has sorted for itself"),
    _counted("group_sizes", "rows of each group, from where the groups end"),
    _counted("peer_rows", "rows to and from each chip, from rows for each expert"),
    _counted("group_ends", "where the rows of each expert of a chip end"),
    _counted("expert_order", "sorts by expert the rows that came from chip after chip"),
    _counted("own_ends", "where the rows of each expert of a chip end, of those it has taken"),
    _taken("own_rows", "of rows that all chips have, those of a chip's own experts"),
    _taken("placed_rows", "all rows, zeros where they are of other chips' experts"),
    Row(
        name="aten._grouped_mm",
        formula=_formula,
        cost=_cost,
        linear=linear_in((0,), (1,)),
        local=same,
        note="2tkn FLOP: each token meets one expert, whichever it is",
    ),
]
