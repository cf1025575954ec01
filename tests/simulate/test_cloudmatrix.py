"""CloudMatrix 384 against what was published of it: tables 1, 7 and 10 of arXiv 2506.12708."""

import statistics

import pytest

from supernode.machine import load_machine
from supernode.ops import Cost, Product
from supernode.simulate import access_time, experts_time, op_time
from supernode.simulate.comm.access import Access
from supernode.simulate.comm.experts import Way

DIES = load_machine("cloudmatrix384@die")

# Table 1: way, dies apart, seconds of 512 B, bytes/s of large messages; per die.
ACCESSES: list[tuple[Access, int, float, float]] = [
    ("read", 15, 1.2e-6, 167e9),
    ("read", 767, 1.9e-6, 164e9),
    ("write", 15, 1.3e-6, 137e9),
    ("write", 767, 2.1e-6, 135e9),
    ("host_read", 15, 1.0e-6, 151e9),
    ("host_read", 767, 1.7e-6, 147e9),
    ("host_write", 15, 1.1e-6, 110e9),
    ("host_write", 767, 1.9e-6, 107e9),
]

# Table 7: 128 tokens a rank, hidden 7168, top-8, int8 to the experts and bfloat16 back.
TOKENS = 128 * 7168 * 8
EXPERTS: list[tuple[Way, int, float]] = [
    ("dispatch", 8, 116e-6),
    ("dispatch", 64, 141e-6),
    ("dispatch", 256, 152e-6),
    ("combine", 8, 118e-6),
    ("combine", 16, 132e-6),
    ("combine", 128, 150e-6),
]

# Table 10: groups, m, n, k and the part of a die's 752 TOP/s.
PRODUCTS = [
    (4, 7168, 4096, 4096, 0.794),
    (4, 2048, 7168, 8192, 0.811),
    (8, 2048, 7168, 4096, 0.779),
]


@pytest.mark.parametrize(("way", "stride", "latency_s", "bandwidth"), ACCESSES)
def test_reads_and_writes_are_those_of_table_1(
    way: Access, stride: int, latency_s: float, bandwidth: float
) -> None:
    small = access_time(way, 512, machine=DIES, stride=stride).time_s
    large = access_time(way, 1e12, machine=DIES, stride=stride).time_s
    assert small == pytest.approx(latency_s, rel=0.02)
    assert 1e12 / large == pytest.approx(bandwidth, rel=0.01)


def test_dispatch_and_combine_are_within_ten_percent_of_table_7() -> None:
    errors: list[float] = []
    for way, size, measured_s in EXPERTS:
        data_bytes = TOKENS * (1 if way == "dispatch" else 2)
        timing = experts_time(
            way, data_bytes, copies=8, once=False, machine=DIES, stride=1, size=size
        )
        errors.append(abs(timing.time_s / measured_s - 1))
    assert statistics.median(errors) <= 0.05
    assert max(errors) <= 0.10


def test_grouped_products_are_within_five_percent_of_table_10() -> None:
    for groups, m, n, k, utilisation in PRODUCTS:
        read, written = float(groups * (m + n) * k), 2.0 * groups * m * n
        shape = Product(groups=groups, m=m, n=n, k=k, ragged=True)
        cost = Cost(2.0 * groups * m * n * k, read, written, "matmul", "int8", shape)
        reached = cost.flops / op_time(cost, DIES.chip).time_s / DIES.chip.peak("int8").value
        assert reached == pytest.approx(utilisation, rel=0.05)


def test_the_published_comparison_of_two_supernodes_is_in_the_catalogue() -> None:
    # 300 : 180 PFLOP/s counts 780 TFLOP/s a package, SemiAnalysis' number; the file uses 752.
    cloudmatrix, nvl72 = load_machine("cloudmatrix384"), load_machine("gb200-nvl72")
    key = "chip.peak_flops_per_s.bfloat16"
    others = {a.number.source: a.number.value for a in cloudmatrix.alternatives if a.key == key}
    assert 384 * others["SemiAnalysis"] == pytest.approx(300e15, rel=2e-3)
    assert 384 * others["SemiAnalysis"] / nvl72.bf16_flops_per_s == pytest.approx(
        300 / 180, rel=2e-3
    )
    assert cloudmatrix.chip.peak("bfloat16").value == 752e12
