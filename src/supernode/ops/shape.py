"""Shapes of the contractions: what a cost model needs to know beyond FLOP and bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`groups` products of `m x k` by `k x n`; those of a grouped product share `m` rows in all.

    `ragged` is set where each group has its own number of rows, which only the run knows: `m` is
    then their mean; with `apart` a kernel of its own multiplies each group, as it does a layer's.
    `cast_bytes` is what a kernel of its own reads and writes to narrow the left operand,
    `gradient_cast_bytes` the same of the gradient of the result; of both a share `turned` is the
    same numbers again in the other order, for chips whose products read one order only. Operands
    that are cast have `narrow` of the bytes they had. `weights` names the format of the right
    operand where it needs kernels of its own.
    """

    groups: int = 1
    m: float
    n: float
    k: float
    ragged: bool = False
    apart: bool = False
    cast_bytes: float = 0.0
    gradient_cast_bytes: float = 0.0
    turned: float = 0.0
    narrow: float = 1.0
    weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Attention: `batch x heads` score matrices of `queries x keys`, over `kv_heads` of keys.

    `causal` kernels skip what the mask hides, and a `window` (0 for none) bounds how far back a
    query looks. `depth` is the width of a query, `value_depth` that of a value.
    """

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int
    causal: bool = False
    window: int = 0
    backward: bool = False


Shape = Product | Scores
