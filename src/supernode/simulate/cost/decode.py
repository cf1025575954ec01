"""Attention of a few queries over a long cache of keys and values, as in a decode step.

The cache is read once: that is the time of a large batch. The heads that share keys (grouped
queries, or all of them where keys are compressed) are stacked into the rows of one product, which
is padded to 64 rows; with many heads a key head that product may take longer than the reading. A
sequence is split among cores until the chip is full, and joining the pieces costs `depth_s` a
doubling; a core needs `tile_s` for each head it starts on, more for wider ones. Paged caches read
the same bytes.

**Source:** Dao et al., "Flash-Decoding", 2023; Hong et al., "FlashDecoding++", MLSys 2024; Liu et
al., "DeepSeek-V2", 2024, section 2.1 (compressed keys).
"""

import numpy as np

from supernode.simulate.cost.attention import BLOCK
from supernode.simulate.cost.rates import Array, Number, Parameters, Rates, joined

ROWS = 64


def decode_s(
    batch: Number,
    heads: Number,
    kv_heads: Number,
    queries: Number,
    keys: Number,
    depths: Number,
    *,
    window: Number,
    in_bytes: float,
    rates: Rates,
    fit: Parameters,
) -> Array:
    """The time of one kernel; `depths` is the width of a key plus that of a value."""
    keys = np.asarray(keys, dtype=np.float64)
    seen = np.where(np.asarray(window) > 0, np.minimum(keys, window), keys)
    cache_bytes = in_bytes * batch * kv_heads * seen * depths
    stacked = np.ceil(np.asarray(heads) / kv_heads * queries / ROWS) * ROWS
    flops = 2.0 * batch * kv_heads * stacked * seen * depths
    arithmetic_s = flops / (rates.flops_per_s * fit["sustained"])
    outer = 2.0 * batch * heads * queries * depths
    memory_s = (cache_bytes + outer) / (rates.bytes_per_s * fit["memory"])
    walks = np.asarray(batch * kv_heads, dtype=np.float64)
    walk_s = np.ceil(walks / rates.cores) * fit["tile_s"] * (BLOCK + depths) / (3 * BLOCK)
    free = np.maximum(rates.cores / walks, 1.0)
    split = np.minimum(np.ceil(keys / BLOCK), free)
    join_s = fit["depth_s"] * np.log2(1 + split)
    body_s = joined(joined(memory_s, arithmetic_s, fit["overlap"]), walk_s, fit["overlap"])
    return fit["launch_s"] + join_s + body_s
