"""How near is equal: the one table of tolerances by dtype, and the one comparison that uses it."""

import math

import torch
from torch import Tensor

# Relative error that a handful of correctly rounded operations may leave, 2 to 20 units in the
# last place. Integers and bool compare exactly.
TOLERANCE = {
    torch.float64: 4e-15,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


def assert_close(got: Tensor, want: Tensor, *, reduced: int = 1) -> None:
    """Assert that two tensors agree within the tolerance of the coarser of their dtypes.

    `reduced` is the length of the longest reduction (dot product, sum, mean) behind an element:
    independent rounding errors add like a random walk, so the tolerance grows with its square
    root. The allowed error of an element is relative to its own size plus the root mean square of
    `want`, because an element near zero may be the difference of large ones.

    **Source:** Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 2.8.
    """
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    tolerance = max(TOLERANCE.get(t.dtype, 0.0) for t in (got, want)) * math.sqrt(reduced)
    got64, want64 = got.detach().double().cpu(), want.detach().double().cpu()
    finite = want64[want64.isfinite()]
    scale = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    allowed = tolerance * (want64.abs() + scale)
    # Equal infinities have no difference; a NaN is never close to anything.
    bad = ~((got64 == want64) | ((got64 - want64).abs() <= allowed))
    bad |= want64.isinf() & (got64 != want64)
    assert not bad.any(), _message(got64, want64, bad, tolerance)


def _message(got: Tensor, want: Tensor, bad: Tensor, tolerance: float) -> str:
    index = tuple(bad.nonzero()[0].tolist())
    count = f"{int(bad.sum())} of {bad.numel()} elements differ (tolerance {tolerance:.1e})"
    return f"{count}; first at {index}: got {got[index]}, expected {want[index]}"
