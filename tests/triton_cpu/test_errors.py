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


def place(kernel):
    return f"kernel {kernel.fn.__name__}, {__file__}:{kernel.starting_line_number}"


def test_read_only_arrays_may_be_read_but_not_written():
    import triton_cpu

    x = np.arange(8.0)
    x.flags.writeable = False
    out = np.zeros(8)
    copy_kernel[(1,)](x, out, 8, BLOCK=8)
    assert np.array_equal(out, x)
    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(1,)](out, x, 8, BLOCK=8)
    assert text_of(error) == (
        f"Argument out is read-only, and the kernel writes to it.\n  where: {place(copy_kernel)}"
    )


def test_strided_numpy_array():
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(1,)](np.arange(16.0)[::2], np.zeros(8), 8, BLOCK=8)
    assert text_of(error) == (
        "Argument x is a NumPy array that is not contiguous.\n"
        f"  where: {place(copy_kernel)}\n"
        "  fix: pass numpy.ascontiguousarray of it"
    )


@pytest.mark.parametrize("size", [1.5, 2**31])
@pytest.mark.parametrize("sanitize", [False, True])
def test_grid_of_no_sizes(size, sanitize):
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(size,)](torch.zeros(8), torch.zeros(8), 8, BLOCK=8, sanitize=sanitize)
    assert text_of(error) == (
        f"The grid is ({size}, 1, 1); its sizes are whole numbers below 2^31.\n"
        f"  where: {place(copy_kernel)}"
    )


@pytest.mark.parametrize("threads", ["many", "0", "-1"])
def test_no_number_of_threads(threads, monkeypatch):
    import triton_cpu

    monkeypatch.setenv("TRITON_CPU_NUM_THREADS", threads)
    kernel = triton.JITFunction(copy_kernel.fn)
    with pytest.raises(triton_cpu.ArgumentError) as error:
        kernel[(1,)](torch.zeros(8), torch.zeros(8), 8, BLOCK=8)
    assert text_of(error) == f"TRITON_CPU_NUM_THREADS is '{threads}', not a number of threads."


def test_tensor_on_another_device():
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError, match="Argument x lies on meta"):
        copy_kernel[(1,)](torch.empty(8, device="meta"), torch.empty(8), 8, BLOCK=8)


@pytest.mark.parametrize(
    ("bad", "wrong"),
    [
        (torch.zeros(8, dtype=torch.complex64), "has elements of torch.complex64, for which"),
        (np.zeros(8, np.complex64), "has elements of complex64, for which Triton has no type."),
        (np.zeros(8, ">f4"), "has elements of >f4, for which Triton has no type."),
        ([1, 2], "is a list, which a kernel can't take."),
        (torch.eye(2).to_sparse(), "can't be passed to a kernel: Cannot access data pointer"),
    ],
)
def test_what_no_kernel_can_take(bad, wrong):
    import triton_cpu

    with pytest.raises(triton_cpu.ArgumentError) as error:
        copy_kernel[(1,)](bad, torch.empty(8), 8, BLOCK=8)
    first, where = text_of(error).split("\n")
    assert first.startswith(f"Argument x {wrong}")
    assert where == f"  where: {place(copy_kernel)}"


@triton.jit
def assembly_kernel(x):
    value = tl.inline_asm_elementwise("mov $0, $1;", "=r,r", [tl.load(x)], tl.int32, True, 1)
    tl.store(x, value)


@triton.jit
def narrow_kernel(x):
    value = tl.load(x + tl.arange(0, 8))
    tl.store(x + tl.arange(0, 8), value + value)


@triton.jit
def quantile_kernel(x):
    tl.store(x, tl.extra.libdevice.normcdfinv(tl.load(x)))


@pytest.mark.parametrize(
    ("kernel", "dtype", "line", "wrong"),
    [
        (assembly_kernel, torch.int32, 2, "no lowering for tt.elementwise_inline_asm"),
        (narrow_kernel, torch.float8_e5m2, 3, "There is no arithmetic on f8E5M2"),
        (quantile_kernel, torch.float32, 2, "The CPU backend has no __nv_normcdfinvf"),
    ],
)
def test_unsupported_ops_are_named_with_kernel_and_line(kernel, dtype, line, wrong):
    import triton_cpu

    with pytest.raises(triton_cpu.UnsupportedOp, match=wrong) as error:
        kernel[(1,)](torch.zeros(8).to(dtype))
    assert error.value.where.startswith(f"kernel {kernel.fn.__name__}, ")
    assert error.value.where.endswith(f"{__file__}:{kernel.starting_line_number + line}")


def test_a_crash_of_the_compiler_names_op_kernel_and_line(monkeypatch):
    import triton_cpu
    from triton_cpu.emit import memory

    def crash(*args):
        raise KeyError("planted")

    monkeypatch.setattr(memory, "load", crash)
    with pytest.raises(triton_cpu.CompileError) as error:
        copy_kernel[(1,)](torch.empty(8), torch.empty(8), 8, BLOCK=4)
    assert text_of(error) == (
        "The compiler failed: KeyError('planted').\n"
        f"  where: kernel copy_kernel, load, {__file__}:{copy_kernel.starting_line_number + 3}"
    )
    assert isinstance(error.value.__cause__, KeyError)


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
    line = shifted_kernel.starting_line_number + 3
    assert text_of(error) == (
        "shifted_kernel, program (0, 0, 0): load of element 64 of x, outside of its memory:"
        f" byte 256 of 256.\n  where: {__file__}:{line}"
    )
    with pytest.raises(triton_cpu.KernelAssertion, match="element -1 of x"):
        shifted_kernel[(1,)](x, out, -1, BLOCK=64, sanitize=True)


@triton.jit
def walking_kernel(x, out, n):
    total = 0.0
    for _ in range(n):
        total += tl.load(x)
        x += 1
    tl.store(out, total)


@triton.jit
def counting_kernel(x, out, n):
    i = tl.arange(0, 8)
    tl.atomic_add(out + i + n, tl.load(x + i), mask=i < 7)


@triton.jit
def lock_kernel(x, out, n):
    tl.atomic_cas(out + n, 0, 1)


@triton.jit
def single_kernel(x, out, n):
    tl.store(out + n + tl.arange(0, 1), tl.load(x + tl.arange(0, 1)))


@pytest.mark.parametrize(
    ("kernel", "fine", "wrong", "message"),
    [
        (single_kernel, 7, 8, "store of element 8 of out"),
        (walking_kernel, 8, 9, "load at 0x.*, outside of every argument"),
        (counting_kernel, 1, 2, "atomic access of element 8 of out"),
        (lock_kernel, 7, -1, "atomic access of element -1 of out"),
    ],
)
def test_the_sanitizer_sees_atomics_single_elements_and_pointers_of_loops(
    kernel, fine, wrong, message
):
    import triton_cpu

    x, out = torch.ones(8, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    kernel[(1,)](x, out, fine, sanitize=True)
    with pytest.raises(triton_cpu.KernelAssertion, match=message):
        kernel[(1,)](x, out, wrong, sanitize=True)


def test_tiles_too_large_for_a_program():
    import triton_cpu

    with pytest.raises(triton_cpu.CompileError, match="MiB for its tiles") as error:
        huge_kernel.warmup(torch.empty(8192, dtype=torch.int32), SIZE=1024, grid=(1,))
    line = huge_kernel.starting_line_number + 1  # below the decorator
    assert error.value.where == f"kernel huge_kernel, {__file__}:{line}"
