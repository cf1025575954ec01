"""How long an op takes on a chip: the mechanism of its kind, or plain roofline where unmeasured."""

from collections.abc import Callable
from functools import partial

from supernode.machine import Chip, Fit, Sourced
from supernode.ops import Cost, Product, Scores, Shape
from supernode.simulate.cost.attention import attention_s, visible
from supernode.simulate.cost.decode import decode_s
from supernode.simulate.cost.gemm import product_s
from supernode.simulate.cost.grouped import grouped_s
from supernode.simulate.cost.memory_bound import stream_s
from supernode.simulate.cost.quantisation import MENU, Menu, finer
from supernode.simulate.cost.rates import Rates
from supernode.simulate.timing import Timing, timing, weakest

FEW = 16
"""With so many queries a sequence the kernels of a decode step run."""

WIDE = 512
"""Keys and values of more numbers a head, which all heads share, are one latent for both.

**Source:** DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1: 512 and 64 that turn with the position.
"""

SMALL = 1e-12
"""Shortens nothing that matters; keeps sizes that are 0 from dividing."""


def op_time(cost: Cost, chip: Chip, *, rows_factor: float = 1.0) -> Timing:
    """The time of an op that costs `cost`; nothing for an op that computes and moves nothing.

    With kernels measured on the chip, the mechanisms of `cost/`; else the slower of arithmetic
    and memory traffic, at the chip's efficiencies, and a launch. Its bound is what no kernel can
    beat: the datasheet's rates, without launch, the scores that a causal mask hides left out, and
    what the cache can hold not fetched. `rows_factor` says how much more rows than the mean the
    fullest chip's experts get.

    **Source:** Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    if not cost.bytes_read + cost.bytes_written and not cost.flops:
        return timing((), 0.0)
    measured = _kernel(cost, chip)
    if measured is None:
        return _roofline(cost, chip, rows_factor)
    fit, seconds = measured
    bound_s = _bound_s(cost, chip, fit)
    ragged = isinstance(cost.shape, Product) and cost.shape.ragged
    time_s = seconds(cost, chip, fit, rows_factor if ragged else 1.0)
    parts: list[Sourced] = [fit.any, chip.memory.bandwidth_bytes_per_s]
    return timing(((max(time_s, bound_s), weakest(parts)),), bound_s)


def fit_for(cost: Cost, chip: Chip) -> Fit | None:
    """What was measured of the kernels that compute an op; None: it is priced by rates alone."""
    measured = _kernel(cost, chip)
    return None if measured is None else measured[0]


Seconds = Callable[[Cost, Chip, Fit, float], float]


def _kernel(cost: Cost, chip: Chip) -> tuple[Fit, Seconds] | None:
    """What was measured of kernels of this kind here, and the formula that uses it."""
    shape = cost.shape
    if is_of_a_cache(shape):
        return _of_cache(cost, chip)
    if isinstance(shape, Scores):
        family, seconds = "attention", _attention
    elif isinstance(shape, Product):
        family, seconds = "grouped" if _in_groups(shape) else "matmul", _product
    elif cost.unit == "matmul":
        return None
    else:
        fit = chip.kernels.get("stream.any")
        return None if fit is None else (fit, _stream)
    fit = _own(shape, family, chip) or chip.kernel(family, cost.dtype) if chip.cores else None
    return None if fit is None else (fit, seconds)


def _own(shape: Shape | None, family: str, chip: Chip) -> Fit | None:
    """What was measured of kernels that widen weights of a format as they read them."""
    weights = shape.weights if isinstance(shape, Product) else ""
    return chip.kernels.get(f"{family}.{weights}") if weights else None


def is_of_a_cache(shape: Shape | None) -> bool:
    """Whether these are the scores of a few queries, with keys that were there before."""
    return isinstance(shape, Scores) and shape.queries <= FEW and not shape.backward


def _of_cache(cost: Cost, chip: Chip) -> tuple[Fit, Seconds] | None:
    """Kernels for latents and for narrow caches where they were measured, else those for all."""
    shape = cost.shape
    assert isinstance(shape, Scores)
    latent = shape.kv_heads == 1 and shape.depth > WIDE
    families = ("latent", "decode") if latent else ("decode",)
    dtypes = (cost.dtype, "bfloat16") if cost.dtype == "float8" else (cost.dtype,)
    found = (chip.kernel(family, dtype) for family in families for dtype in dtypes)
    fit = next((fit for fit in found if fit is not None), None) if chip.cores else None
    return None if fit is None else (fit, _decode)


def _bound_s(cost: Cost, chip: Chip, fit: Fit | None) -> float:
    matmul = cost.unit == "matmul"
    peak = chip.peak(cost.dtype) if matmul else chip.vector_flops_per_s
    moved = cost.bytes_read + cost.bytes_written
    if fit is not None and "cache_bytes" in fit:
        moved = max(moved - fit["cache_bytes"], 0.0)
    shape, flops = cost.shape, cost.flops
    if isinstance(shape, Scores):
        seen = visible(shape.queries, shape.keys, shape.window, causal=shape.causal)
        flops *= seen
        moved *= seen if shape.window else 1.0
    if isinstance(shape, Product) and shape.ragged:
        moved = cost.bytes_written  # experts without rows are not read
    return max(flops / peak.value, moved / chip.memory.bandwidth_bytes_per_s.value)


def _roofline(cost: Cost, chip: Chip, rows_factor: float) -> Timing:
    matmul = cost.unit == "matmul"
    peak = chip.peak(cost.dtype) if matmul else chip.vector_flops_per_s
    rates = (peak, chip.matmul_efficiency) if matmul else (peak,)
    bandwidth, streaming = chip.memory.bandwidth_bytes_per_s, chip.memory.efficiency
    moved_bytes = cost.bytes_read + cost.bytes_written
    ragged = isinstance(cost.shape, Product) and cost.shape.ragged
    arithmetic_s = cost.flops / peak.value * (rows_factor if ragged else 1.0)
    memory_s = moved_bytes / bandwidth.value
    reached = chip.matmul_efficiency.value if matmul else 1.0
    body = max(
        (arithmetic_s / reached, weakest(rates)),
        (memory_s / streaming.value, weakest((bandwidth, streaming))),
    )
    launch = (chip.launch_overhead_s.value, chip.launch_overhead_s.kind)
    return timing((body, launch), max(cost.flops / peak.value, memory_s))


def _rates(cost: Cost, chip: Chip) -> Rates:
    assert chip.cores is not None
    return Rates(
        flops_per_s=chip.peak(cost.dtype).value,
        bytes_per_s=chip.memory.bandwidth_bytes_per_s.value,
        cores=chip.cores.value,
    )


def _product(cost: Cost, chip: Chip, fit: Fit, rows_factor: float) -> float:
    shape = cost.shape
    assert isinstance(shape, Product)
    groups, m, n, k = shape.groups, shape.m, shape.n, shape.k
    seconds = grouped_s if _in_groups(shape) else partial(product_s, menu=_menu(fit))
    time = seconds(
        groups,
        m * rows_factor,
        n,
        k,
        in_bytes=cost.bytes_read / max(groups * (m + n) * k, SMALL),
        out_bytes=cost.bytes_written / max(groups * m * n, SMALL),
        rates=_rates(cost, chip),
        fit=fit,
    )
    written = 1 - shape.turned if chip.either_order else 1.0
    casts = (shape.cast_bytes, shape.gradient_cast_bytes)
    cast_s = sum(_cast_s(moved * written, chip) for moved in casts)
    return max(float(time), _steady_s(cost, chip)) + cast_s


def _steady_s(cost: Cost, chip: Chip) -> float:
    """What products take at the rate that the power limit lets a chip keep up.

    Tables time a kernel for some milliseconds, in which a chip may draw more than it may for long;
    a step goes on.
    """
    fit = chip.kernel("matmul", cost.dtype)
    if fit is None or "steady" not in fit:
        return 0.0
    return cost.flops / (chip.peak(cost.dtype).value * fit["steady"])


def _in_groups(shape: Product) -> bool:
    """Whether one kernel multiplies all groups."""
    return shape.ragged and not shape.apart


def _cast_s(moved: float, chip: Chip) -> float:
    fit = chip.kernels.get("stream.any")
    if fit is None or not moved:
        return 0.0
    return float(stream_s(moved, bytes_per_s=chip.memory.bandwidth_bytes_per_s.value, fit=fit))


def _menu(fit: Fit) -> Menu:
    return finer(fit["grain"]) if "grain" in fit else MENU


def _attention(cost: Cost, chip: Chip, fit: Fit, rows_factor: float) -> float:
    shape = cost.shape
    assert isinstance(shape, Scores)
    time = attention_s(
        *_heads(shape),
        window=shape.window,
        causal=shape.causal,
        backward=shape.backward,
        in_bytes=_element(cost, shape),
        rates=_rates(cost, chip),
        fit=fit,
    )
    return float(time)


def _decode(cost: Cost, chip: Chip, fit: Fit, rows_factor: float) -> float:
    shape = cost.shape
    assert isinstance(shape, Scores)
    time = decode_s(
        *_heads(shape),
        window=shape.window,
        in_bytes=_element(cost, shape),
        rates=_rates(cost, chip),
        fit=fit,
    )
    return float(time)


def _heads(shape: Scores) -> tuple[int, int, int, int, int, int]:
    depths = shape.depth + shape.value_depth
    return shape.batch, shape.heads, shape.kv_heads, shape.queries, shape.keys, depths


def _element(cost: Cost, shape: Scores) -> float:
    """The bytes of an element, from all that is read."""
    outer = shape.heads * shape.queries * (shape.depth + shape.backward * shape.value_depth)
    inner = shape.kv_heads * shape.keys * (shape.depth + shape.value_depth)
    return cost.bytes_read / max(shape.batch * (outer + inner), 1)


def _stream(cost: Cost, chip: Chip, fit: Fit, rows_factor: float) -> float:
    moved = cost.bytes_read + cost.bytes_written
    time_s = stream_s(moved, bytes_per_s=chip.memory.bandwidth_bytes_per_s.value, fit=fit)
    return max(float(time_s), fit["launch_s"] + cost.flops / chip.vector_flops_per_s.value)
