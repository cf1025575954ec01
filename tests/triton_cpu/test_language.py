"""Families of `triton.language`, each against torch or NumPy. Triton's own tests are run by
tools/triton_conformance.py; these stay with the code."""

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")


@triton.jit
def _pair_max(value, index, other, other_index):
    take = (other > value) | ((other == value) & (other_index < index))
    return tl.where(take, other, value), tl.where(take, other_index, index)


@triton.jit
def reduce_kernel(x, sums, maxima, places, AXIS: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    m, n = tl.arange(0, M), tl.arange(0, N)
    values = tl.load(x + m[:, None] * N + n[None, :])
    rest = n if AXIS == 0 else m
    tl.store(sums + rest, tl.sum(values, AXIS))
    at = tl.broadcast_to(m[:, None] if AXIS == 0 else n[None, :], (M, N))
    largest, place = tl.reduce((values, at), AXIS, _pair_max)
    tl.store(maxima + rest, largest)
    tl.store(places + rest, place)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(4, 8), (64, 32), (16, 256)])
def test_reduce_by_functions_of_one_and_of_two_tiles(axis, shape):
    x = torch.randint(-50, 50, shape).float()
    size = shape[1 - axis]
    sums, maxima = torch.empty(size), torch.empty(size)
    places = torch.empty(size, dtype=torch.int32)
    reduce_kernel[(1,)](x, sums, maxima, places, axis, *shape)
    torch.testing.assert_close(sums, x.sum(axis))
    assert torch.equal(maxima, x.amax(axis))
    # torch promises no particular one of equal maxima; NumPy takes the first
    assert np.array_equal(places.numpy(), np.argmax(x.numpy(), axis))


@triton.jit
def scan_kernel(
    x, out, AXIS: tl.constexpr, REVERSE: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(out + at, tl.cumsum(tl.load(x + at), AXIS, reverse=REVERSE))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(axis, reverse):
    x = torch.randint(-9, 9, (32, 64), dtype=torch.int32)
    out = torch.empty_like(x)
    scan_kernel[(1,)](x, out, axis, reverse, 32, 64)
    expected = x.flip(axis).cumsum(axis).flip(axis) if reverse else x.cumsum(axis)
    assert torch.equal(out, expected.int())


@triton.jit
def sort_kernel(x, out, N: tl.constexpr, DOWN: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.sort(tl.load(x + at), descending=DOWN))


@pytest.mark.parametrize("descending", [False, True])
def test_sort(descending):
    x = torch.randn(64)
    out = torch.empty(64)
    sort_kernel[(1,)](x, out, 64, descending)
    assert torch.equal(out, x.sort(descending=descending).values)


@triton.jit
def shapes_kernel(x, y, out, N: tl.constexpr):
    at = tl.arange(0, N)
    joined = tl.interleave(tl.load(x + at), tl.load(y + at))  # 2N
    table = tl.trans(tl.reshape(joined, (2, N)))  # (N, 2)
    low, high = tl.split(table)
    tl.store(out + at, tl.flip(low, 0) - high)
    tl.store(out + N + at, tl.gather(high, (at * 3) % N, 0))


def test_interleave_reshape_trans_split_flip_gather():
    n = 32
    x, y = torch.randn(n), torch.randn(n)
    out = torch.empty(2 * n)
    shapes_kernel[(1,)](x, y, out, n)
    table = torch.stack((x, y), 1).reshape(2, n).T
    expected = torch.cat((table[:, 0].flip(0) - table[:, 1], table[:, 1][torch.arange(n) * 3 % n]))
    assert torch.equal(out, expected)


@triton.jit
def histogram_kernel(x, out, N: tl.constexpr, BINS: tl.constexpr):
    counts = tl.histogram(tl.load(x + tl.arange(0, N)), BINS)
    tl.atomic_add(out + tl.arange(0, BINS), counts)


def test_histogram_and_atomic_add_from_many_programs():
    x = torch.randint(0, 16, (64,), dtype=torch.int32)
    out = torch.zeros(16, dtype=torch.int32)
    histogram_kernel[(50,)](x, out, 64, 16)
    assert torch.equal(out, 50 * torch.bincount(x, minlength=16).int())


@triton.jit
def locked_kernel(lock, total, N: tl.constexpr):
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    at = total + tl.arange(0, N)
    tl.store(at, tl.load(at) + 1)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


def test_a_lock_orders_plain_loads_and_stores():
    lock, total = torch.zeros(1, dtype=torch.int32), torch.zeros(8)
    locked_kernel[(500,)](lock, total, 8)
    assert total.tolist() == [500.0] * 8


@triton.jit(noinline=True)
def _collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@triton.jit
def control_kernel(x, out):
    value = tl.load(x + tl.program_id(0))
    if value <= 0:
        tl.store(out + tl.program_id(0), -1)
        return
    tl.store(out + tl.program_id(0), _collatz(value))


def test_while_early_return_and_device_function():
    x = torch.tensor([1, 2, 3, 27, 0, -5], dtype=torch.int32)
    out = torch.empty(6, dtype=torch.int32)
    control_kernel[(6,)](x, out)
    assert out.tolist() == [0, 1, 7, 111, -1, -1]


@triton.jit
def shift_kernel(x, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x + at + 1, tl.load(x + at))


def test_a_store_does_not_overtake_the_load_it_overlaps():
    x = torch.arange(257.0)
    shift_kernel[(1,)](x, 256)
    assert torch.equal(x, torch.tensor([0.0, *range(256)]))


@triton.jit
def swap_kernel(out, STEPS, N: tl.constexpr):
    a, b = tl.arange(0, N), tl.arange(0, N) * 10
    for _ in range(STEPS):
        a, b = b, a + b
    tl.store(out + tl.arange(0, N), a)


def test_loop_carried_tiles_are_replaced_all_at_once():
    out = torch.empty(16, dtype=torch.int32)
    swap_kernel[(1,)](out, 5, 16)
    a, b = torch.arange(16), torch.arange(16) * 10
    for _ in range(5):
        a, b = b, a + b
    assert out.tolist() == a.tolist()


@triton.jit
def block_pointer_kernel(x, out, m, n, BM: tl.constexpr, BN: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [m, n], [n, 1], [BM, BN])
    target = tl.make_tensor_descriptor(out, [m, n], [n, 1], [BM, BN])
    row, column = tl.program_id(0) * BM, tl.program_id(1) * BN
    target.store([row, column], source.load([row, column]) * 2)


def test_tensor_descriptors_stop_at_the_edges():
    x = torch.randn(20, 28)
    out = torch.zeros(20, 28)
    block_pointer_kernel[(2, 2)](x, out, 20, 28, 16, 16)
    assert torch.equal(out, x * 2)


@triton.jit
def random_kernel(out, seed, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.rand(seed, at))


def test_random_numbers_are_uniform_and_depend_on_seed_and_offset_alone():
    out, again = torch.empty(8192), torch.empty(8192)
    random_kernel[(8,)](out, 7, 1024)
    random_kernel[(64,)](again, 7, 128)
    assert torch.equal(out, again)
    assert 0 <= out.min() < 0.01
    assert 0.99 < out.max() < 1
    assert abs(float(out.mean()) - 0.5) < 0.02


def test_device_print(capfd):
    @triton.jit
    def printing(x):
        tl.device_print("value", tl.load(x + tl.program_id(0)))

    printing[(2,)](torch.tensor([3, 5], dtype=torch.int32))
    lines = sorted(capfd.readouterr().out.splitlines())
    assert lines == ["pid (0, 0, 0) idx () value: 3", "pid (1, 0, 0) idx () value: 5"]


@pytest.mark.parametrize(
    "name", ["float8_e5m2", "float8_e4m3fn", "float16", "bfloat16", "float64", "int16", "uint8"]
)
def test_casts_agree_with_torch(name):
    @triton.jit
    def cast(x, out, N: tl.constexpr):
        at = tl.arange(0, N)
        tl.store(out + at, tl.load(x + at).to(out.dtype.element_ty))

    dtype = getattr(torch, name)
    x = torch.randn(512) * 20
    if not dtype.is_floating_point:
        x = x.abs()
    out = torch.empty(512, dtype=dtype)
    cast[(1,)](x, out, 512)
    assert torch.equal(out.view(torch.int8), x.to(dtype).view(torch.int8))
