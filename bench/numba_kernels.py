"""The algorithms of `triton_kernels` as a Numba user writes them: rows in parallel, plain loops."""

# pyright: reportMissingImports=false

from collections.abc import Callable

import numba
import numpy as np
import torch

fast = numba.njit(parallel=True, fastmath=True)


@fast
def softmax(x, out):
    for row in numba.prange(x.shape[0]):
        largest = x[row].max()
        total = np.float32(0)
        for i in range(x.shape[1]):
            out[row, i] = np.exp(x[row, i] - largest)
            total += out[row, i]
        for i in range(x.shape[1]):
            out[row, i] /= total


@fast
def layer_norm(x, weight, bias, out, eps):
    for row in numba.prange(x.shape[0]):
        mean = np.float32(0)
        for i in range(x.shape[1]):
            mean += x[row, i]
        mean /= x.shape[1]
        spread = np.float32(0)
        for i in range(x.shape[1]):
            spread += (x[row, i] - mean) ** 2
        scale = np.float32(1 / np.sqrt(spread / x.shape[1] + eps))
        for i in range(x.shape[1]):
            out[row, i] = (x[row, i] - mean) * scale * weight[i] + bias[i]


@fast
def swiglu(gate, up, out):
    for row in numba.prange(gate.shape[0]):
        for i in range(gate.shape[1]):
            g = gate[row, i]
            out[row, i] = g / (np.float32(1) + np.exp(-g)) * up[row, i]


@fast
def chain(x, y, out):
    for row in numba.prange(x.shape[0]):
        for i in range(x.shape[1]):
            a, b = x[row, i], y[row, i]
            z = max(a * np.float32(0.5) + b, np.float32(0))
            out[row, i] = z * z - a * b + np.float32(1)


def calls(rows: int, columns: int) -> dict[str, Callable[[], object]]:
    """Each algorithm on arrays of that size, checked."""
    # In torch's memory as well: NumPy asks the system for huge pages, torch does not.
    x, y, out = (torch.randn(rows, columns).numpy() for _ in range(3))
    weight, bias = (torch.randn(columns).numpy() for _ in range(2))
    softmax(x, out)
    np.testing.assert_allclose(out.sum(1), 1, rtol=1e-4)
    return {
        "softmax": lambda: softmax(x, out),
        "layer norm": lambda: layer_norm(x, weight, bias, out, 1e-5),
        "SwiGLU": lambda: swiglu(x, y, out),
        "element-wise chain": lambda: chain(x, y, out),
    }
