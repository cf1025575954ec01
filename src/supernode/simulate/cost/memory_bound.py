"""Ops that move more than they compute: the bytes, from memory or from the last-level cache.

What an op before just wrote is still in the cache if all it touches fits there, and then moves at
`cache_bytes_per_s`; what is larger streams at `memory` of the bandwidth. Between, the part that
stays in the cache falls off.

**Source:** Ilic, Pratas and Sousa, "Cache-aware Roofline Model", IEEE CAL 13(1), 2014.
"""

import numpy as np

from supernode.simulate.cost.rates import Array, Number, Parameters


def stream_s(moved_bytes: Number, *, bytes_per_s: float, fit: Parameters) -> Array:
    """The time of an op that moves so many bytes once."""
    moved = np.asarray(moved_bytes, dtype=np.float64)
    far = missed(moved, fit["cache_bytes"])
    near_s = moved * (1 - far) / fit["cache_bytes_per_s"]
    far_s = moved * far / (bytes_per_s * fit["memory"])
    return fit["launch_s"] + near_s + far_s


def missed(moved: Array, cache_bytes: float) -> Array:
    """The part that the cache does not hold: none up to its size, then what overflows it twice."""
    over = np.maximum(moved - cache_bytes, 0)
    return np.minimum(2 * over / np.maximum(moved, 1e-30), 1.0)
