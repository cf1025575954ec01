"""How `triton.autotune` times kernels here: by this machine's clock, with cold caches, no torch."""

import ctypes
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

CACHE_FLUSH_BYTES = 64 << 20
_FEWEST_TURNS = 3


def do_bench(
    fn: Callable[[], Any],
    warmup: float = 25,
    rep: float = 100,
    grad_to_none: Any = None,
    quantiles: Sequence[float] | None = None,
    return_mode: str = "mean",
) -> Any:
    """Milliseconds of `fn()`, with the arguments of `triton.testing.do_bench`: for `warmup`, then
    for `rep` milliseconds it runs, and memory as large as caches is written, by turns."""
    fn()
    _run_for(fn, warmup)
    times = _run_for(fn, rep)
    if quantiles is not None:
        return [_quantile(sorted(times), part) for part in quantiles]
    if return_mode == "all":
        return times
    how = {"mean": statistics.fmean, "median": statistics.median, "min": min, "max": max}
    return how[return_mode](times)


def _run_for(fn: Callable[[], Any], milliseconds: float) -> list[float]:
    flushed = _flush_buffer()
    times: list[float] = []
    end = time.perf_counter() + 1e-3 * milliseconds
    while time.perf_counter() < end or len(times) < _FEWEST_TURNS:
        ctypes.memset(flushed, 0, CACHE_FLUSH_BYTES)
        start = time.perf_counter()
        fn()
        times.append(1e3 * (time.perf_counter() - start))
    return times


@functools.cache
def _flush_buffer() -> Any:
    return ctypes.create_string_buffer(CACHE_FLUSH_BYTES)


def _quantile(ordered: list[float], part: float) -> float:
    """Between the two nearest, as torch and NumPy do."""
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
