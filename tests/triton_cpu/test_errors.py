"""Bad input gives one clear error; assertions name the kernel, the program and the line."""

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")


@triton.jit
def copy_kernel(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n), mask=i < n)


@triton.jit
def positive_kernel(x, out):
    value = tl.load(x + tl.program_id(0))
    tl.device_assert(value > 0, "not positive")
    tl.store(out + tl.program_id(0), value)


@triton.jit
def shifted_kernel(x, out, shift, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i + shift))


@triton.jit
def huge_kernel(out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    big = i[:, None] * i[None, :]
    total = tl.sum(big, 0)
    for _ in tl.static_range(20):
        big = tl.cumsum(tl.cumsum(tl.cumsum(big, 0), 1), 0)
    tl.store(out + i, tl.sum(big, 1) + total)


def text_of(error):
    return str(error.value)


def test_read_only_arrays_may_be_read_but_not_written():
    import triton_cpu

    x = np.arange(8.0)
    x.flags.writeable = False
    out = np.zeros(8)
    copy_kernel[(1,)](x, out, 8, BLOCK=8)
    assert np.array_equal(out, x)
    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(1,)](out, x, 8, BLOCK=8)
    assert text_of(error) == "Argument out is read-only, and the kernel writes to it."


def test_strided_numpy_array():
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(1,)](np.arange(16.0)[::2], np.zeros(8), 8, BLOCK=8)
    assert text_of(error) == (
        "Argument x is a NumPy array that is not contiguous.\n"
        "  fix: pass numpy.ascontiguousarray of it"
    )


def test_tensor_on_another_device():
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError, match="Argument x lies on meta"):
        copy_kernel[(1,)](torch.empty(8, device="meta"), torch.empty(8), 8, BLOCK=8)


def test_numpy_dtype_without_a_triton_type():
    with pytest.raises(TypeError, match="no type for NumPy arrays of complex64"):
        copy_kernel[(1,)](np.zeros(8, np.complex64), np.zeros(8), 8, BLOCK=8)


def test_device_assert_names_the_program_and_the_line():
    import triton_cpu

    x = torch.tensor([1.0, 2.0, -3.0, 4.0])
    with pytest.raises(triton_cpu.KernelAssertion) as error:
        positive_kernel[(4,)](x, torch.empty(4), debug=True)
    first, where = text_of(error).split("\n")
    assert first == "positive_kernel, program (2, 0, 0): not positive."
    line = positive_kernel.starting_line_number + 3
    assert where == f"  where: {__file__}:{line}"


def test_the_sanitizer_finds_a_load_outside_its_tensor():
    import triton_cpu

    x, out = torch.arange(64.0), torch.empty(64)
    shifted_kernel[(1,)](x, out, 0, BLOCK=64, sanitize=True)
    assert torch.equal(out, x)
    with pytest.raises(triton_cpu.KernelAssertion) as error:
        shifted_kernel[(1,)](x, out, 3, BLOCK=64, sanitize=True)
    assert "load outside its allocation: byte 256, element 64 of 4 bytes" in text_of(error)
    with pytest.raises(triton_cpu.KernelAssertion, match="element -1"):
        shifted_kernel[(1,)](x, out, -1, BLOCK=64, sanitize=True)


def test_tiles_too_large_for_a_program():
    import triton_cpu

    with pytest.raises(triton_cpu.CompileError, match="MiB for its tiles"):
        huge_kernel.warmup(torch.empty(8192, dtype=torch.int32), SIZE=1024, grid=(1,))
