"""float32 math: at most 2 ulp from the true value, over all magnitudes and the special ones."""

import numpy as np
import pytest

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38]
COUNT = 1 << 16


@triton.jit
def math_kernel(x, out, NAME: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    if NAME == "exp":
        result = tl.exp(value)
    elif NAME == "exp2":
        result = tl.exp2(value)
    elif NAME == "log":
        result = tl.log(value)
    elif NAME == "log2":
        result = tl.log2(value)
    elif NAME == "sin":
        result = tl.sin(value)
    elif NAME == "cos":
        result = tl.cos(value)
    elif NAME == "erf":
        result = tl.erf(value)
    elif NAME == "tanh":
        result = tl.extra.libdevice.tanh(value)
    else:
        result = tl.sqrt(value)
    tl.store(out + at, result)


def _erf(x):
    import torch

    return torch.erf(torch.from_numpy(x)).numpy()


TRUE = {
    **{name: getattr(np, name) for name in ("exp", "exp2", "log", "log2", "sin", "cos", "tanh")},
    **{"erf": _erf, "sqrt": np.sqrt},
}


def _inputs(name):
    random = np.random.default_rng(0)
    patterns = random.integers(0, 1 << 32, COUNT // 2, dtype=np.uint32).view(np.float32)
    usual = random.normal(0, 30, COUNT - len(patterns) - len(SPECIAL)).astype(np.float32)
    usual[::2] /= 30
    return np.concatenate([patterns, usual, np.array(SPECIAL, np.float32)])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(TRUE))
def test_two_ulp(name):
    x = _inputs(name)
    out = np.empty_like(x)
    math_kernel[(COUNT // 1024,)](x, out, name, BLOCK=1024)
    true = TRUE[name](x.astype(np.float64))
    rounded = true.astype(np.float32)
    finite = np.isfinite(rounded)
    assert np.array_equal(np.isnan(out), np.isnan(rounded))
    infinite = np.isinf(rounded)
    assert np.array_equal(out[infinite], rounded[infinite])
    ulp = np.spacing(np.abs(rounded[finite]))
    error = np.abs(out[finite].astype(np.float64) - true[finite]) / ulp
    worst = int(np.argmax(error))
    assert error[worst] <= 2, (name, x[finite][worst], out[finite][worst], error[worst])
