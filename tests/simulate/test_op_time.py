import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.ops import Cost
from supernode.simulate import Timing, op_time
from tiny import machine

CHIP = machine(peak=1e12, memory_bandwidth=1e11, launch_s=2e-6).chip

costs = st.builds(
    Cost,
    flops=st.floats(0, 1e18),
    bytes_read=st.floats(0, 1e12),
    bytes_written=st.floats(0, 1e12),
    unit=st.sampled_from(["matmul", "vector", "none"]),
    dtype=st.sampled_from(["float32", "bfloat16", "float64", "float8_e4m3fn"]),
)


def assert_obeys_roofline(timing: Timing) -> None:
    assert timing.time_s >= timing.bound_s >= 0
    assert timing.time_s == pytest.approx(sum(timing.by_kind.values()))


@given(costs)
def test_no_op_is_faster_than_the_roofline(cost: Cost) -> None:
    assert_obeys_roofline(op_time(cost, CHIP))


def test_the_roofline_property_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_obeys_roofline(Timing(time_s=1.0, bound_s=2.0, by_kind={"measured": 1.0}))


def test_a_matmul_reaches_its_share_of_the_peak_of_its_dtype() -> None:
    wide = op_time(Cost(flops=1e12, unit="matmul", dtype="float32"), CHIP)
    narrow = op_time(Cost(flops=1e12, unit="matmul", dtype="bfloat16"), CHIP)
    assert wide.time_s == pytest.approx(2.0 + 2e-6)
    assert wide.bound_s == 1.0
    assert narrow.time_s == pytest.approx(1.0 + 2e-6)
    assert wide.by_kind == {"inferred": 2.0, "guessed": 2e-6}


def test_memory_bounds_an_op_that_computes_little() -> None:
    timing = op_time(Cost(flops=1e6, bytes_read=6e10, bytes_written=4e10, unit="vector"), CHIP)
    assert timing.time_s == pytest.approx(1.0 + 2e-6)
    assert timing.by_kind == {"measured": 1.0, "guessed": 2e-6}


def test_vector_work_runs_at_the_vector_rate() -> None:
    assert op_time(Cost(flops=1e11, unit="vector"), CHIP).bound_s == pytest.approx(1.0)


def test_what_costs_nothing_takes_no_time() -> None:
    assert op_time(Cost(), CHIP).time_s == 0
