"""All-reduce and reduce-scatter, bit for bit against the same sums made by torch in rank order."""

from functools import reduce

import pytest
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32)
SIZES = (1, 7, 1000, 20_011, 70_001)  # below one cache line up to several chunks
CASES = [
    (dtype, op)
    for op in ("sum", "max", "min")
    for dtype in (*FLOATS, *INTEGERS, torch.bool)
    if (dtype, op) != (torch.bool, "sum")
]


def random_tensor(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return (torch.randn(shape, generator=generator) * 100).to(dtype)
    high = 2 if dtype is torch.bool else 2**31 - 1  # sums of int32 wrap round, as torch's do
    return torch.randint(0, high, shape, generator=generator).to(dtype)


def expected(tensors: list[Tensor], op: str) -> Tensor:
    """In order, 16-bit floats kept in float32 and rounded once."""
    dtype = tensors[0].dtype
    wide = [x.float() if dtype in (torch.bfloat16, torch.float16) else x for x in tensors]
    combine = {"sum": torch.add, "max": torch.maximum, "min": torch.minimum}[op]
    return reduce(combine, wide).to(dtype)


def assert_same_bits(got: Tensor, want: Tensor) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if not torch.equal(got, want):  # NaN is not equal to itself; which NaN it is doesn't matter
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("dtype", "op"), CASES)
def test_all_reduce_is_the_sum_in_rank_order_on_every_rank(square, dtype, op):
    group = (0, 1, 2, 3)
    inputs = [[random_tensor(10 * n + rank, (n,), dtype) for n in SIZES] for rank in group]
    results = square.run([[("all_reduce", (x, group, op)) for x in inputs[r]] for r in group])
    for i in range(len(SIZES)):
        want = expected([inputs[rank][i] for rank in group], op)
        for rank in group:
            assert_same_bits(results[rank][i], want)


@pytest.mark.parametrize(("dtype", "op"), CASES)
def test_reduce_scatter_gives_each_rank_its_piece_of_that_sum(square, dtype, op):
    group = (0, 1, 2, 3)
    inputs = [random_tensor(rank, (3, 4 * 2003, 5), dtype) for rank in group]
    pieces = expected(inputs, op).chunk(4, dim=1)
    got = square.same(lambda rank: ("reduce_scatter", (inputs[rank], 1, group, op)))
    for rank in group:
        assert_same_bits(got[rank], pieces[rank])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", ["sum", "max", "min"])
def test_every_16_bit_pattern_is_widened_and_rounded_as_torch_does(pair, dtype, op):
    """Infinities, NaNs, subnormals and ties among them, each met by a random other pattern."""
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16)
    shuffle = torch.randperm(2**16, generator=torch.Generator().manual_seed(0))
    inputs = [patterns.view(dtype), patterns[shuffle].view(dtype)]
    for got in pair.same(lambda rank: ("all_reduce", (inputs[rank], (0, 1), op))):
        assert_same_bits(got, expected(inputs, op))


def test_large_values_of_half_overflow_to_infinity(pair):
    x = torch.tensor([65504.0, -65504.0, 40000.0], dtype=torch.float16)
    step = torch.tensor([15.0, -16.0, 40000.0], dtype=torch.float16)
    got = pair.same(lambda rank: ("all_reduce", ((x, step)[rank], (0, 1))))
    want = torch.tensor([65504.0, -torch.inf, torch.inf], dtype=torch.float16)
    assert_same_bits(got[0], want)


def test_the_order_of_the_group_is_the_order_of_the_sum(square):
    values = [torch.tensor([x]) for x in (1e8, 1.0, -1e8, 1.0)]
    in_order = square.same(lambda rank: ("all_reduce", (values[rank], (0, 1, 2, 3))))
    other = square.same(lambda rank: ("all_reduce", (values[rank], (0, 2, 1, 3))))
    assert {x.item() for x in in_order} == {1.0}  # 1e8 + 1 is 1e8 in float32
    assert {x.item() for x in other} == {2.0}


def test_a_repeated_sum_has_the_same_bits(square):
    group = (0, 1, 2, 3)
    inputs = [random_tensor(rank, (50_001,), torch.float32) for rank in group]
    program = [[("all_reduce", (inputs[rank], group))] * 5 for rank in group]
    results = [x for replies in square.run(program) for x in replies]
    assert all(torch.equal(x, results[0]) for x in results)


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_large_tensor_goes_through_the_windows_whole(pair, size):
    inputs = [random_tensor(rank, (size,), torch.float32) for rank in (0, 1)]
    for got in pair.same(lambda rank: ("all_reduce", (inputs[rank], (0, 1)))):
        assert_same_bits(got, inputs[0] + inputs[1])
