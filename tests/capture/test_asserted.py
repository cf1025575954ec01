"""A branch of which one way raises is a check: the step is recorded as it goes on."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from capture.jobs import capture_job, custom, refused
from capture.steps import assert_exact, run_once
from supernode.errors import CheckFailed

Guard = Callable[[Tensor, int | None], None]


def negated(y: Tensor, limit: int | None) -> None:
    if not (y < 4).all():
        raise ValueError("labels beyond the classes")


def stated(y: Tensor, limit: int | None) -> None:
    assert (y < 4).all(), "labels beyond the classes"


def last_of_many(y: Tensor, limit: int | None) -> None:
    if limit is not None and y.max() >= limit:
        raise ValueError(f"labels beyond {limit}")


def any_of(y: Tensor, limit: int | None) -> None:
    if (
        y.min() < 0  # of the first
        or not torch.isfinite(y.float()).all()
        or y.max() >= 4
    ):
        text = "labels beyond the classes"
        raise ValueError(text)


def otherwise(y: Tensor, limit: int | None) -> None:
    if (y < 4).all():
        pass
    else:
        raise ValueError("labels beyond the classes")


def all_of(y: Tensor, limit: int | None) -> None:
    assert (y >= 0).all() and (y < 4).all()  # noqa: PT018


def of_a_distribution(y: Tensor, limit: int | None) -> None:
    # Said here: the first torch.compile of a process turns the default off.
    torch.distributions.Uniform(y.float(), torch.full(y.shape, 4.0), validate_args=True)


def step_with(guard: Guard, loss: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
    def step(x: Tensor, y: Tensor) -> Tensor:
        guard(y, 4)
        return x.sum() * loss

    return step


@pytest.mark.parametrize(
    "guard", [negated, stated, last_of_many, any_of, otherwise, all_of, of_a_distribution]
)
def test_what_raises_otherwise_is_a_check(guard: Guard) -> None:
    made = custom(lambda model, opt: step_with(guard))
    captured = assert_exact(lambda: custom(lambda model, opt: step_with(guard)))
    assert captured.checks
    x, y = made.args
    run_once(captured, x, y)
    with pytest.raises((ValueError, AssertionError)):
        guard(y + 4, 4)
    with pytest.raises(CheckFailed, match="a check of the step does not hold"):
        run_once(captured, x, y + 4)


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (stated, "labels beyond the classes"),
        (last_of_many, r"labels beyond \?"),
        (any_of, r"y.min\(\) < 0 or "),
        (all_of, r"assert \(y >= 0\).all\(\)"),
    ],
)
def test_a_check_says_what_the_step_would(guard: Guard, said: str) -> None:
    made = custom(lambda model, opt: step_with(guard))
    captured = capture_job(made)
    x, y = made.args
    with pytest.raises(CheckFailed, match=said) as caught:
        run_once(captured, x, y + 4)
    assert "test_asserted.py" in caught.value.where


def both(y: Tensor, limit: int | None) -> None:
    if (y > 1).any() and (y > 2).any():
        raise ValueError("only both together are wrong")


def caught(y: Tensor, limit: int | None) -> None:
    try:
        assert (y < 2).all()
    except AssertionError:
        y.sum()


def part_of_it(y: Tensor, limit: int | None) -> None:
    if math.isnan(y.float().sum()):
        raise ValueError("what is asked is not whether the sum is zero")


def returns(y: Tensor, limit: int | None) -> None:
    if (y < 2).all():
        if limit is not None:
            return
        raise ValueError("not always")


def goes_on(y: Tensor, limit: int | None) -> None:
    if (y < 2).all():
        y.sum()


@pytest.mark.parametrize("guard", [both, caught, part_of_it, returns, goes_on])
def test_what_may_go_both_ways_is_refused(guard: Guard) -> None:
    refused(custom(lambda model, opt: step_with(guard)), "depends on data")
