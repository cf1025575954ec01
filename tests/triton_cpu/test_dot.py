"""`tl.dot`: operands read where they lie or copied first, accumulators from zeros or not."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")


@triton.jit
def dot_kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a_at = a + m[:, None] * (K * STEPS) + k[None, :]
    b_at = b + k[:, None] * N + n[None, :]
    total = tl.zeros((M, N), dtype=c.dtype.element_ty)
    for _ in range(STEPS):
        total = tl.dot(tl.load(a_at), tl.load(b_at), total, out_dtype=c.dtype.element_ty)
        a_at += K
        b_at += K * N
    tl.store(c + m[:, None] * N + n[None, :], total)


@pytest.mark.parametrize(
    ("dtype", "out_dtype", "tolerance"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.float16, torch.float32, 1e-4),
        (torch.bfloat16, torch.float32, 1e-4),
        (torch.float64, torch.float64, 1e-12),
        (torch.int8, torch.int32, 0),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [(16, 16, 32, 1), (32, 64, 64, 3), (8, 128, 16, 2), (64, 256, 128, 1), (64, 2048, 32, 2)],
)
def test_dot(dtype, out_dtype, tolerance, shape):
    m, n, k, steps = shape
    if dtype.is_floating_point:
        a, b = torch.randn(m, k * steps).to(dtype), torch.randn(k * steps, n).to(dtype)
    else:
        a = torch.randint(-100, 100, (m, k * steps), dtype=dtype)
        b = torch.randint(-100, 100, (k * steps, n), dtype=dtype)
    c = torch.empty(m, n, dtype=out_dtype)
    dot_kernel[(1,)](a, b, c, m, n, k, steps)
    expected = (a.double() @ b.double()).to(out_dtype)
    torch.testing.assert_close(c, expected, rtol=tolerance, atol=tolerance * k)


@triton.jit
def transposed_dot_kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + k[:, None] * M + m[None, :])
    right = tl.load(b + n[:, None] * K + k[None, :])
    tl.store(c + m[:, None] * N + n[None, :], tl.dot(left.T, right.T))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dot_of_transposed_tiles(dtype):
    a, b = torch.randn(64, 32).to(dtype), torch.randn(16, 64).to(dtype)
    c = torch.empty(32, 16)
    transposed_dot_kernel[(1,)](a, b, c, 32, 16, 64)
    expected = (a.double().T @ b.double().T).float()
    torch.testing.assert_close(c, expected, rtol=1e-4, atol=1e-3)


def test_bfloat16_is_multiplied_by_the_matrix_unit():
    from triton_cpu.runtime import host

    if "amx-bf16" not in host.features():
        pytest.skip("the CPU has none that a process may use")
    a = torch.randn(16, 32).bfloat16()
    kernel = dot_kernel[(1,)](a, torch.randn(32, 16).bfloat16(), torch.empty(16, 16), 16, 16, 32, 1)
    assert "tdpbf16ps" in kernel.asm["asm"]


@triton.jit
def strided_kernel(
    a,
    b,
    c,
    a_row,
    b_row,
    steps,
    START: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    total = tl.full((M, N), START, tl.float32)
    for step in range(steps):
        left = tl.load(a + step * K + m[:, None] * a_row + k[None, :])
        right = tl.load(b + (step * K + k)[:, None] * b_row + n[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + m[:, None] * N + n[None, :], total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("start", [0.0, 1.5])
def test_matrices_are_read_where_they_lie(dtype, steps, start):
    m, n, k = 64, 128, 64
    a, b = torch.randn(m, 1000).to(dtype), torch.randn(3 * k, 777).to(dtype)
    c = torch.full((m, n), torch.nan)
    kernel = strided_kernel[(1,)](a, b, c, 1000, 777, steps, start, m, n, k)
    expected = a[:, : steps * k].double() @ b[: steps * k, :n].double() + start
    torch.testing.assert_close(c, expected.float(), rtol=1e-4, atol=1e-3)
    assert "sdiv exact i64" in kernel.asm["llir"], "the rows' distance was not computed"


@triton.jit
def backward_kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """Rows of `a` from the last to the first."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + (M - 1) * K + m[:, None] * -K + k[None, :])
    right = tl.load(b + k[:, None] * N + n[None, :])
    tl.store(c + m[:, None] * N + n[None, :], tl.dot(left, right))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_may_lie_backwards(dtype):
    a, b = torch.randn(64, 32).to(dtype), torch.randn(32, 64).to(dtype)
    c = torch.empty(64, 64)
    backward_kernel[(1,)](a, b, c, 64, 64, 32)
    expected = (a.flip(0).double() @ b.double()).float()
    torch.testing.assert_close(c, expected, rtol=1e-4, atol=1e-3)


@triton.jit
def overwriting_kernel(a, b, c, N: tl.constexpr):
    """`a` is overwritten between its load and the product."""
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    left, right = tl.load(a + at), tl.load(b + at)
    tl.store(a + at, tl.zeros((N, N), a.dtype.element_ty))
    tl.store(c + at, tl.dot(left, right))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_store_overtakes_the_load_of_an_operand(dtype):
    a, b, c = torch.randn(64, 64).to(dtype), torch.randn(64, 64).to(dtype), torch.empty(64, 64)
    expected = (a.double() @ b.double()).float()
    overwriting_kernel[(1,)](a, b, c, 64)
    torch.testing.assert_close(c, expected, rtol=1e-4, atol=1e-3)
    assert not a.any()


@triton.jit
def partial_sums_kernel(a, b, c, steps, N: tl.constexpr):
    """The accumulator is read in each turn, and after the loop by two readers."""
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    total = tl.zeros((N, N), tl.float32)
    for step in range(steps):
        total = tl.dot(tl.load(a + step * N * N + at), tl.load(b + step * N * N + at), total)
        tl.store(c + step * N * N + at, total)
    tl.store(c + steps * N * N + at, total + tl.max(total))


def test_accumulators_that_others_read():
    steps, n = 3, 32
    a, b = torch.randn(steps, n, n).bfloat16(), torch.randn(steps, n, n).bfloat16()
    c = torch.full((steps + 1, n, n), torch.nan)
    partial_sums_kernel[(1,)](a, b, c, steps, n)
    expected = (a.double() @ b.double()).cumsum(0).float()
    torch.testing.assert_close(c[:-1], expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(c[-1], expected[-1] + expected[-1].max(), rtol=1e-4, atol=1e-3)


def test_the_sanitizer_sees_operands_of_products():
    import triton_cpu

    a, b, c = torch.randn(64, 32), torch.randn(31, 64), torch.empty(64, 64)
    with pytest.raises(triton_cpu.KernelAssertion, match=r"outside of its memory"):
        backward_kernel[(1,)](a, b, c, 64, 64, 32, sanitize=True)
