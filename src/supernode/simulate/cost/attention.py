"""Attention over many queries: blocks of scores that never leave a core.

A core takes 128 queries of one head (or `queries`, where a chip has it) and walks over their keys,
128 at a time. Under a causal mask it walks up to the diagonal, so half of the blocks are skipped,
but whole blocks: short sequences skip less. A block costs its two products and `score_s` an element
for what is no product (exponentials, maxima, rescaling). Those follow one another, or are `hidden`
in part: a core that takes 256 queries multiplies for one half while it has the other half's scores.

The backward pass computes the scores again and four more products: 5 products to the 2 of the
forward pass, and its scores twice as often.

**Source:** Dao, "FlashAttention-2", 2023; Shah et al., "FlashAttention-3", 2024 (section 3: what
is no product limits); Zadouri et al., "FlashAttention-4", 2026 (two tiles of 128 queries a core in
turns, on Blackwell).
"""

import numpy as np

from supernode.simulate.cost.rates import Array, Number, Parameters, Rates, joined

BLOCK = 128
PRODUCTS = 2
BACKWARD_PRODUCTS = 5


def attention_s(
    batch: Number,
    heads: Number,
    kv_heads: Number,
    queries: Number,
    keys: Number,
    depths: Number,
    *,
    window: Number,
    causal: bool,
    backward: bool,
    in_bytes: float,
    rates: Rates,
    fit: Parameters,
) -> Array:
    """The time of one kernel; `depths` is the width of a query plus that of a value."""
    queries, keys, depths = (np.asarray(a, dtype=np.float64) for a in (queries, keys, depths))
    tile = fit.get("queries", BLOCK)
    rows = np.ceil(queries / tile)
    per_row, longest = blocks(queries, keys, window, causal=causal, tile=tile)
    passes = BACKWARD_PRODUCTS / PRODUCTS if backward else 1.0
    rate = rates.flops_per_s / rates.cores * fit["sustained"]
    # A short sequence fills its blocks in part: tensor cores take 16 rows at least.
    height = np.minimum(tile, np.ceil(queries / 16) * 16)
    width = np.minimum(BLOCK, np.ceil(keys / 16) * 16)
    scores_s = np.asarray(fit["score_s"])
    each_s = joined(2 * depths / rate, scores_s, fit.get("hidden", 1.0))
    block_s = height * width * passes * each_s
    tasks = np.asarray(batch * heads * rows)
    walk_s = np.maximum(tasks * per_row / rates.cores, longest) * block_s
    arithmetic_s = walk_s + np.maximum(tasks / rates.cores, 1.0) * fit["tile_s"]
    moved = in_bytes * batch * depths * (queries * heads + keys * kv_heads)
    memory_s = moved * (2.0 if backward else 1.0) / (rates.bytes_per_s * fit["memory"])
    return fit["launch_s"] + joined(arithmetic_s, memory_s, fit["overlap"])


def blocks(
    queries: Number, keys: Number, window: Number, *, causal: bool, tile: float = BLOCK
) -> tuple[Array, Array]:
    """Blocks of keys that a tile of queries meets, on average and at most."""
    rows, across = np.ceil(np.asarray(queries) / tile), np.ceil(np.asarray(keys) / BLOCK)
    if not causal:
        return across, across
    high = tile / BLOCK
    before = np.maximum(across - rows * high, 0)  # keys that all queries see
    mean, longest = before + (rows + 1) / 2 * high, before + rows * high
    reach = np.ceil(np.asarray(window) / BLOCK) + high
    windowed = np.asarray(window) > 0
    mean = np.where(windowed, np.minimum(mean, reach), mean)
    longest = np.where(windowed, np.minimum(longest, reach), longest)
    return np.minimum(mean, across), np.minimum(longest, across)


def visible(queries: float, keys: float, window: float, *, causal: bool) -> float:
    """The share of scores that any kernel must compute."""
    if not causal or not queries or not keys:
        return 1.0
    seen = (keys - min(queries, keys)) + (min(queries, keys) + 1) / 2
    return min(seen, window or seen) / keys
