"""Tables of measured kernels, as arrays: what `bench/fit.py` fits to.

They come with the PyPI package `aiconfigurator-core` (Apache-2.0), which is needed for fitting
only; nothing of it is kept here but the numbers found by the fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from supernode.machine import Machine
from supernode.simulate.cost.attention import attention_s
from supernode.simulate.cost.decode import decode_s
from supernode.simulate.cost.gemm import product_s
from supernode.simulate.cost.grouped import grouped_s
from supernode.simulate.cost.memory_bound import stream_s
from supernode.simulate.cost.rates import Array, Parameters, Rates

BYTES = {"bfloat16": 2.0, "float8": 1.0, "int8": 1.0, "float4": 0.5625}
"""Of an element; four-bit floats carry a scale of a byte for each 16."""
WIDENED = {"mxfp4": 0.53125, "int4": 0.53125}
"""Of a weight that is widened as it is read, with its scale."""

Predict = Callable[[Parameters], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Measured seconds of one family of kernels, and the model of the same rows.

    `site` numbers the shapes: rows of one shape of weights (or heads) are held out together.
    """

    seconds: Array
    site: Array
    predict: Callable[["Rows"], Predict]
    columns: pd.DataFrame

    def take(self, mask: Array) -> "Rows":
        """The rows where `mask` holds."""
        kept = self.columns[mask]
        return Rows(
            seconds=self.seconds[mask], site=self.site[mask], predict=self.predict, columns=kept
        )


def _read(
    paths: Sequence[Path], keys: Sequence[str], chosen: str, *, fastest: bool = True
) -> pd.DataFrame:
    """The rows of tables for which `chosen` holds, of those with equal keys the fastest kernel, or
    the median of them.

    A kernel that was measured several times in one dtype takes the median of them.
    """
    found: list[pd.DataFrame] = []
    for path in paths:
        frame = pd.read_parquet(path)
        if "window_size" in keys and "window_size" not in frame:
            frame["window_size"] = 0
        frame = frame.query(chosen) if chosen else frame
        kernel = [name for name in frame if name == "kernel_source" or name in _DTYPES]
        found.append(frame.groupby([*keys, *kernel], as_index=False).latency.median())
    alike = pd.concat(found).groupby(list(keys), as_index=False).latency
    return alike.min() if fastest else alike.median()


_DTYPES = ("gemm_dtype", "moe_dtype")


def _rows(frame: pd.DataFrame, site: Sequence[str], predict: Callable[[Rows], Predict]) -> Rows:
    number = sum(frame[name] * prime for name, prime in zip(site, _PRIMES, strict=False))
    return Rows(
        seconds=frame.latency.to_numpy() * 1e-3,
        site=np.asarray(number, dtype=np.int64),
        predict=predict,
        columns=frame,
    )


_PRIMES = (7919, 104729, 31, 17, 13)


def rates(machine: Machine, dtype: str) -> Rates:
    """The datasheet's rates of the chip for one dtype."""
    chip = machine.chip
    assert chip.cores is not None
    return Rates(
        flops_per_s=chip.peak(dtype).value,
        bytes_per_s=chip.memory.bandwidth_bytes_per_s.value,
        cores=chip.cores.value,
    )


def matmul(
    paths: Sequence[Path], machine: Machine, dtype: str, chosen: str, *, fastest: bool = True
) -> Rows:
    """Dense products: `gemm_perf`."""
    able = rates(machine, dtype)

    def predict(rows: Rows) -> Predict:
        m, n, k = (rows.columns[name].to_numpy(float) for name in "mnk")
        size, cast = BYTES[dtype], _cast_s(m, k, machine, dtype)
        return lambda fit: (
            cast + product_s(1.0, m, n, k, in_bytes=size, out_bytes=2.0, rates=able, fit=fit)
        )

    return _rows(_read(paths, ("m", "n", "k"), chosen, fastest=fastest), ("n", "k"), predict)


def _cast_s(m: Array, k: Array, machine: Machine, dtype: str) -> Array | float:
    """What tables of a narrow `dtype` begin with: they take bfloat16 and cast it."""
    if BYTES[dtype] >= 2:
        return 0.0
    rate = rates(machine, dtype).bytes_per_s
    stream = machine.chip.kernels["stream.any"]
    return stream_s((2 + BYTES[dtype]) * m * k, bytes_per_s=rate, fit=stream)


LONG_S, WIDE = 8e-3, 2048
"""A kernel that takes so long is slowed by the power limit as one that never ends; and the least
rows, columns and depth of a product that fills any of these chips."""


def steady(rows: Rows, machine: Machine, dtype: str) -> float | None:
    """The share of the peak that products keep up, once the power limit has taken hold.

    The middle of all that take long and fill the chip; None where there are too few.
    """
    m, n, k = (rows.columns[name].to_numpy(float) for name in "mnk")
    peak, cast = rates(machine, dtype).flops_per_s, _cast_s(m, k, machine, dtype)
    long = (rows.seconds >= LONG_S) & (np.minimum(np.minimum(m, n), k) >= WIDE)
    share = 2 * m * n * k / ((rows.seconds - cast) * peak)
    return float(np.median(share[long])) if np.count_nonzero(long) >= 20 else None


def grouped(
    paths: Sequence[Path], machine: Machine, dtype: str, chosen: str, *, unit: str = ""
) -> Rows:
    """A layer of experts: two grouped products (up and gate, down), and what stands between.

    Their weights are in `dtype`, and `unit` multiplies if that is another one.

    Layers of which any row took less than it takes to read its experts' weights once are left out:
    their router sent the rows to fewer experts (some to half of the groups), or had no gate.
    """
    able, stream = rates(machine, unit or dtype), machine.chip.kernels["stream.any"]
    size, weight = BYTES[unit or dtype], WIDENED[dtype] if unit else BYTES[dtype]
    keys = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts")
    keys = (*keys, "moe_tp_size", "moe_ep_size")

    def predict(rows: Rows) -> Predict:
        (t, h, f), groups, m, busy = dealt(rows.columns)
        given = groups * m
        between = stream_s(2 * 3 * given * f, bytes_per_s=able.bytes_per_s, fit=stream)
        outer = stream_s(2 * (2 * t + 4 * given) * h, bytes_per_s=able.bytes_per_s, fit=stream)

        def total(fit: Parameters) -> Array:
            common = {"out_bytes": 2.0, "rates": able, "fit": fit, "busy": busy}
            up = grouped_s(groups, m, 2 * f, h, in_bytes=element(m, 2 * f), **common)
            down = grouped_s(groups, m, h, f, in_bytes=element(m, h), **common)
            return up + down + between + outer

        return total

    def element(m: Array, n: Array) -> Array:
        return (m * size + n * weight) / (m + n)

    def dealt(frame: pd.DataFrame) -> tuple[list[Array], Array, Array, Array]:
        """Tokens and widths; groups, their mean rows, and how many get any, dealt out in turn."""
        t, h, f, top, e, tp, ep = (frame[name].to_numpy(float) for name in keys)
        groups, m = e / ep, t * top / e
        return [t, h, f / tp], groups, m, np.minimum(groups, np.maximum(groups * m, 1.0))

    frame = _read(paths, keys, chosen)
    (_, h, f), _, _, busy = dealt(frame)
    least_s = 3 * busy * h * f * weight / able.bytes_per_s
    layer = list(keys[1:5])
    uneven = frame[frame.latency * 1e-3 < least_s][layer].drop_duplicates()
    left_out = frame.merge(uneven, how="left", on=layer, indicator=True)["_merge"] == "both"
    return _rows(frame[~left_out.to_numpy()], keys[1:3] + keys[4:], predict)


_HEADS = ("batch_size", "num_heads", "num_key_value_heads", "head_dim", "window_size")


def attention(paths: Sequence[Path], machine: Machine, dtype: str, chosen: str) -> Rows:
    """Causal attention of whole sequences, which also writes keys and values into the cache."""
    able, stream = rates(machine, dtype), machine.chip.kernels["stream.any"]
    keys = (*_HEADS, "isl")

    def predict(rows: Rows) -> Predict:
        b, h, g, e, w, s = (rows.columns[name].to_numpy(float) for name in keys)
        cached = 4 * b * s * g * e * BYTES[dtype]
        writing = stream_s(cached, bytes_per_s=able.bytes_per_s, fit=stream)
        return lambda fit: (
            writing
            + attention_s(
                *(b, h, g, s, s, 2 * e),
                window=w,
                causal=True,
                backward=False,
                in_bytes=BYTES[dtype],
                rates=able,
                fit=fit,
            )
        )

    return _rows(_read(paths, keys, chosen), (*_HEADS[1:4], "batch_size"), predict)


def decode(paths: Sequence[Path], machine: Machine, dtype: str, chosen: str) -> Rows:
    """Attention of one new token over a cache: `generation_attention_perf`."""
    able = rates(machine, dtype)
    keys = (*_HEADS, "step")

    def predict(rows: Rows) -> Predict:
        b, h, g, e, w, s = (rows.columns[name].to_numpy(float) for name in keys)
        return lambda fit: decode_s(
            *(b, h, g, 1.0, s + 1, 2 * e), window=w, in_bytes=BYTES[dtype], rates=able, fit=fit
        )

    return _rows(_read(paths, keys, chosen), (*_HEADS[1:4], "batch_size"), predict)


LATENT = 576
"""The width of DeepSeek-V3's latent with its rotary key: that of keys and values in one."""


def latent(paths: Sequence[Path], machine: Machine, dtype: str, chosen: str) -> Rows:
    """Attention of one new token, all of whose heads read one latent: `generation_mla_perf`."""
    able = rates(machine, dtype)
    keys = ("batch_size", "num_heads", "step")

    def predict(rows: Rows) -> Predict:
        b, h, s = (rows.columns[name].to_numpy(float) for name in keys)
        size = BYTES[dtype] / 2  # what is both key and value is read once
        return lambda fit: decode_s(
            *(b, h, 1.0, 1.0, s + 1, 2 * LATENT), window=0.0, in_bytes=size, rates=able, fit=fit
        )

    return _rows(_read(paths, keys, chosen), ("num_heads", "batch_size"), predict)


def stream(paths: Sequence[Path], machine: Machine, dtype: str, chosen: str) -> Rows:
    """Casting by a scale: reads bfloat16, writes bytes: `scale_matrix_perf`."""
    bandwidth = machine.chip.memory.bandwidth_bytes_per_s.value

    def predict(rows: Rows) -> Predict:
        moved = 3.0 * rows.columns.m.to_numpy(float) * rows.columns.k.to_numpy(float)
        return lambda fit: stream_s(moved, bytes_per_s=bandwidth, fit=fit)

    return _rows(_read(paths, ("m", "k"), chosen), ("k",), predict)
