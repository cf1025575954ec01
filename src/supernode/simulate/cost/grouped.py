"""Grouped products: the rows of each expert times its matrix, in one kernel.

As a product (`gemm.py`) with three differences: the last tile of each expert is partly empty,
half of it on average where the number of rows is the run's; only experts that get rows are read;
and every expert adds `group_s` of bookkeeping. Experts share the chip, so what an unbalanced
router costs inside a chip is the partly empty tiles; between chips the fullest one decides
(`terms.py`).

**Source:** Gale et al., "MegaBlocks", MLSys 2023, section 5 (blocks of 128 rows); tiles as in
`quantisation.py`.
"""

import numpy as np

from supernode.simulate.cost.quantisation import WHOLE, waves
from supernode.simulate.cost.rates import Array, Number, Parameters, Rates, joined


def grouped_s(
    groups: Number,
    m: Number,
    n: Number,
    k: Number,
    *,
    in_bytes: Number,
    out_bytes: float,
    rates: Rates,
    fit: Parameters,
    busy: Number | None = None,
) -> Array:
    """The time of `groups` products whose `m` rows are a mean; `busy` of them get rows at all.

    By default as many as an even random choice of each row's group would leave.
    """
    groups, m, n, k = (np.asarray(size, dtype=np.float64)[..., None] for size in (groups, m, n, k))
    busy = occupied(groups, m) if busy is None else np.asarray(busy)[..., None]
    in_bytes = np.asarray(in_bytes)[..., None]
    rows = m * groups / busy
    menu = WHOLE
    filled_rows = np.maximum(rows / menu.rows + 0.5, 1.0)
    tiles = busy * filled_rows * np.ceil(n / menu.columns)
    filled = np.maximum(tiles / rates.cores, waves(tiles, rates.cores) - 0.5)
    core_flops = rates.flops_per_s / rates.cores
    tile_s = fit["tile_s"] + 2 * menu.rows * menu.columns * k / core_flops
    flops = 2 * groups * m * n * k
    arithmetic_s = np.maximum(filled * tile_s, flops / (rates.flops_per_s * fit["sustained"]))
    moved = in_bytes * (groups * m * k + busy * k * n) + out_bytes * groups * m * n
    memory_s = moved / (rates.bytes_per_s * fit["memory"])
    body_s = joined(arithmetic_s, memory_s, fit["overlap"])
    start_s = fit["launch_s"] + fit["group_s"] * groups[..., 0]
    return start_s + np.min(body_s, axis=-1)


def occupied(groups: Array, m: Array) -> Array:
    """How many groups get rows, if each of `groups × m` rows picks one evenly at random."""
    missed = np.exp(groups * m * np.log1p(-1 / np.maximum(groups, 1 + 1e-9)))
    return np.clip(groups * (1 - missed), np.minimum(groups, 1.0), groups)
