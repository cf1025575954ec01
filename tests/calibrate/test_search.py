from collections.abc import Sequence
from math import log

import pytest

from supernode.calibrate.search import Values, descend, fitted


def test_descent_finds_where_a_loss_is_least():
    def loss(values: Values) -> float:
        return log(values["a"] / 3e-6) ** 2 + log(values["b"] * values["a"] / 6e-6) ** 2

    found = descend(loss, {"a": 1e-5, "b": 1.0}, {})
    assert found["a"] == pytest.approx(3e-6, rel=0.05)
    assert found["b"] == pytest.approx(2, rel=0.05)


def test_a_parameter_stays_within_its_bound():
    assert descend(lambda v: -v["share"], {"share": 0.5}, {"share": 1.0})["share"] == 1.0


def test_errors_are_those_of_samples_that_were_not_fitted():
    sizes = [float(2**i) for i in range(16)]
    seconds = [1e-6 + size * 1e-9 for size in sizes]
    seconds[7] *= 2  # held out, so the parameters do not follow it

    def predict(values: Values, which: Sequence[int]) -> list[float]:
        return [values["start_s"] + sizes[i] * values["byte_s"] for i in which]

    found = fitted(predict, seconds, {"start_s": 1e-5, "byte_s": 1e-8}, {})
    assert found.values["start_s"] == pytest.approx(1e-6, rel=0.03)
    assert found.values["byte_s"] == pytest.approx(1e-9, rel=0.03)
    assert found.rows == 4
    assert found.median_error < 0.03
    assert 0.1 < found.p90_error < 0.5
