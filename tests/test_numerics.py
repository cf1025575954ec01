import pytest
import torch

from numerics import TOLERANCE, assert_close

FLOATS = list(TOLERANCE)


def values(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-2, 2, 33, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_to_the_dtype_is_close(dtype: torch.dtype):
    assert_close(values(dtype), values(torch.float64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", [0, 16])
def test_a_planted_wrong_value_fails(dtype: torch.dtype, index: int):
    wrong = values(dtype)
    wrong[index] += 8 * TOLERANCE[dtype]  # index 16 is the zero among the values
    with pytest.raises(AssertionError, match=rf"1 of 33 elements differ .* first at \({index},\)"):
        assert_close(wrong, values(dtype))


def test_a_long_reduction_is_allowed_more():
    want = torch.ones(3, dtype=torch.float64)
    off = want + 8 * TOLERANCE[torch.float64]
    assert_close(off, want, reduced=100)
    with pytest.raises(AssertionError):
        assert_close(off, want, reduced=4)


def test_a_sum_in_another_order_is_close():
    addends = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    backwards = torch.zeros(())
    for addend in addends.flip(0):
        backwards = backwards + addend
    assert_close(backwards, addends.double().sum(), reduced=4096)


def test_integers_are_exact():
    assert_close(torch.tensor([1, 2]), torch.tensor([1, 2]))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1, 2]), torch.tensor([1, 3]))


@pytest.mark.parametrize("planted", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_fails(planted: float):
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1.0, planted]), torch.tensor([1.0, 2.0]))
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, planted]))


def test_equal_infinities_are_close():
    minus = torch.tensor([float("-inf"), 1.0])
    assert_close(minus, minus)


def test_another_shape_fails():
    with pytest.raises(AssertionError, match=r"shape \(1, 2\), expected \(2,\)"):
        assert_close(torch.ones(1, 2), torch.ones(2))
