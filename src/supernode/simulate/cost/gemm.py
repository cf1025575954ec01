"""Matrix products: arithmetic in waves of tiles, memory traffic, and a start.

    arithmetic = max(waves × (tile_s + tile FLOP / core rate), FLOP / (peak × sustained))
    memory     = max(traffic / (bandwidth × memory), waves × tile bytes / (draw × core share))
    time       = launch_s + the cheapest of the menu of: joined(arithmetic, memory) + split_s

- `tile_s`: fill and drain of a tile's pipeline, why a shallow k reaches less;
- `sustained`: the part of the peak that the whole chip reaches for some milliseconds. The peak is
  quoted at a clock that a chip full of multiply-adds does not hold. What it keeps up for long is
  less on chips of today (`steady`, in `op_time.py`);
- `draw`: how much more than its share of the memory's bandwidth one core can take, why few tiles
  with long sums (a decode step's m of 1 to 64) do not fill the memory;
- `grain`, where a chip has it: the rows of the smallest tile, 64 on chips with warps;
- `reread`: the part of an operand's traffic beyond once that misses the cache, when a wave covers
  a block of the output and the next wave needs the same rows again.

**Source:** roofline: Williams, Waterman, Patterson, CACM 52(4), 2009; tiles and waves:
`quantisation.py`; power: "Not all GPUs are created equal", SC 2022, and the 700 W notes of
NVIDIA's H100 SXM.
"""

import numpy as np

from supernode.simulate.cost.quantisation import MENU, Menu, depth, waves
from supernode.simulate.cost.rates import Array, Number, Parameters, Rates, joined


def product_s(
    groups: Number,
    m: Number,
    n: Number,
    k: Number,
    *,
    in_bytes: float,
    out_bytes: float,
    rates: Rates,
    fit: Parameters,
    menu: Menu = MENU,
) -> Array:
    """The time of `groups` products `m k, k n -> m n`; elements take `in_bytes`, `out_bytes`.

    Arrays of the shapes of the products broadcast together and give one time each.
    """
    groups, m, n, k = (np.asarray(size, dtype=np.float64)[..., None] for size in (groups, m, n, k))
    deep = depth(k, menu)
    area = menu.rows * menu.columns
    tiles = groups * np.ceil(m / menu.rows) * np.ceil(n / menu.columns) * menu.splits
    filled = waves(tiles, rates.cores)
    core_flops = rates.flops_per_s / rates.cores
    flops = 2 * groups * m * n * k
    tile_s = fit["tile_s"] + 2 * area * deep / core_flops
    arithmetic_s = np.maximum(filled * tile_s, flops / (rates.flops_per_s * fit["sustained"]))

    traffic = operand_bytes(groups, m, n, k, area, in_bytes, rates, fit["reread"])
    bandwidth = rates.bytes_per_s
    whole_s = (traffic + groups * m * n * out_bytes) / (bandwidth * fit["memory"])
    tile_bytes = (menu.rows + menu.columns) * deep * in_bytes
    core_s = filled * tile_bytes / (fit["draw"] * bandwidth / rates.cores)
    body_s = joined(arithmetic_s, np.maximum(whole_s, core_s), fit["overlap"])
    # Partial sums in float32: each split writes and reads its own.
    partial_s = fit["split_s"] + 8 * groups * m * n * menu.splits / (3 * bandwidth)
    split_s = np.where(menu.splits > 1, partial_s, 0.0)
    return fit["launch_s"] + np.min(body_s + split_s, axis=-1)


def operand_bytes(
    groups: Array,
    m: Array,
    n: Array,
    k: Array,
    area: Array,
    in_bytes: float,
    rates: Rates,
    reread: float,
) -> Array:
    """What is read of both operands: once, and a part of what each wave reads again."""
    rows = np.minimum(m, np.sqrt(rates.cores * area))
    columns = np.minimum(n, rates.cores * area / rows)
    once = (m + n) * k
    by_wave = m * n / (rows * columns) * (rows + columns) * k
    return groups * in_bytes * (once + reread * np.maximum(by_wave - once, 0))
