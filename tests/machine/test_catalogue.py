"""Each machine of the catalogue, and its totals against what was published for the whole."""

from datetime import date

import pytest

from supernode.machine import KINDS, Machine, Sourced, catalogue, load_machine

MACHINES = {name: load_machine(name) for name in catalogue()}


def all_numbers(machine: Machine) -> list[Sourced]:
    own = [number for _, number in machine.numbers()]
    return own + [alternative.number for alternative in machine.alternatives]


def test_the_catalogue_holds_the_machines_we_promise():
    assert catalogue() == (
        "atlas-800-910",
        "atlas-800t-a2",
        "atlas-800t-a2-354",
        "atlas-800t-a3",
        "cloudmatrix384",
        "dgx-v100",
        "gb200-nvl72",
        "gb300-nvl72",
        "hgx-a100",
        "hgx-a100-40gb",
        "hgx-b200",
        "hgx-b300",
        "hgx-h100",
        "hgx-h100-500w",
        "hgx-h20",
        "hgx-h200",
        "hgx-h800",
    )


@pytest.mark.parametrize("name", catalogue())
def test_every_number_has_a_birth(name: str):
    machine = MACHINES[name]
    sources = {source.name for source in machine.sources}
    for number in all_numbers(machine):
        assert number.source in sources
        assert number.kind in KINDS
        assert date.fromisoformat((number.date + "-01-01")[:10]) <= date(2027, 1, 1)


@pytest.mark.parametrize("name", catalogue())
def test_every_source_is_used(name: str):
    used = {number.source for number in all_numbers(MACHINES[name])}
    assert used == {source.name for source in MACHINES[name].sources}


@pytest.mark.parametrize("name", catalogue())
def test_a_file_is_named_after_its_machine(name: str):
    assert MACHINES[name].name == name


@pytest.mark.parametrize("name", catalogue())
def test_estimates_and_recalled_sources_are_marked_as_guesses(name: str):
    machine = MACHINES[name]
    unread = {s.name for s in machine.sources if "recalled" in s.title or s.name == "estimate"}
    assert {n.kind for n in all_numbers(machine) if n.source in unread} <= {"guessed"}


@pytest.mark.parametrize("name", catalogue())
def test_the_chips_draw_less_than_the_machine(name: str):
    machine = MACHINES[name]
    assert 0.3 < machine.chips * machine.chip.power_w.value / machine.power_w.value < 1


@pytest.mark.parametrize("name", catalogue())
def test_outer_levels_are_no_faster_than_inner_ones(name: str):
    levels = MACHINES[name].levels
    rates = [level.bandwidth_bytes_per_s.value * level.efficiency.value for level in levels]
    latencies = [level.latency_s.value for level in levels]
    assert rates == sorted(rates, reverse=True)
    assert latencies == sorted(latencies)


def test_cloudmatrix_is_1_6_times_nvl72():
    ratio = MACHINES["cloudmatrix384"].bf16_flops_per_s / MACHINES["gb200-nvl72"].bf16_flops_per_s
    assert ratio == pytest.approx(288.8 / 180, rel=1e-3)
    assert round(ratio, 2) == 1.60


# What was published for whole machines: bf16 (or fp16) PFLOP/s, memory TB, memory TB/s.
# Source: CM384 and Huawei's A3 page (288.7, 49.2, 1,229), NVIDIA's GB200 page (180 dense, 13.4,
# 576), Huawei's 800T A2 white paper (2.504), and the totals of the HGX boards as published.
@pytest.mark.parametrize(
    ("name", "petaflops", "memory_tb", "memory_tb_per_s"),
    [
        ("cloudmatrix384", 288.7, 49.2, 1229),
        ("gb200-nvl72", 180, 13.4, 576),
        ("hgx-h100", 7.9, 0.640, 26.8),
        ("hgx-h800", 7.9, 0.640, 26.8),
        ("hgx-h200", 7.9, 1.128, 38.4),
        ("hgx-b200", 18, 1.546, 61.6),
        ("hgx-b300", 18, 2.307, 62),
        ("gb300-nvl72", 180, 21.46, 576),
        ("atlas-800t-a3", 6.0, 1.024, 25.6),
        ("hgx-h20", 1.18, 0.768, 32),
        ("hgx-a100", 2.5, 0.640, 16.3),
        ("atlas-800t-a2", 2.504, 0.512, 12.8),
        ("dgx-v100", 1.0, 0.256, 7.2),
        ("atlas-800-910", 2.048, 0.256, 9.6),
    ],
)
def test_totals_are_the_published_ones(
    name: str, petaflops: float, memory_tb: float, memory_tb_per_s: float
):
    machine = MACHINES[name]
    assert machine.bf16_flops_per_s == pytest.approx(petaflops * 1e15, rel=4e-3)
    assert machine.memory_bytes == pytest.approx(memory_tb * 1e12, rel=2e-3)
    assert machine.memory_bandwidth_bytes_per_s == pytest.approx(memory_tb_per_s * 1e12, rel=2e-3)


def test_scale_up_totals_are_the_published_ones():
    # Source: SemiAnalysis, 518,400 Gb/s one way; CM384, 48 nodes x 7 uplinks x 448 GB/s.
    nvl72, cm384 = MACHINES["gb200-nvl72"].summary(), MACHINES["cloudmatrix384"].summary()
    assert 72 * nvl72["scale_up_bytes_per_s"] * 8 == pytest.approx(518_400e9)
    assert 384 * cm384["scale_up_bytes_per_s"] == pytest.approx(48 * 7 * 448e9)


@pytest.mark.parametrize(("name", "dtype"), [("dgx-v100", "float16"), ("hgx-h20", "bfloat16")])
def test_the_16_bit_peak_says_which_type_it_is_of(name: str, dtype: str):
    assert MACHINES[name].bf16_dtype == dtype
    assert MACHINES[name].summary()["bf16_dtype"] == dtype


def test_disagreements_are_kept():
    machine = MACHINES["cloudmatrix384"]
    others = {(a.key, a.number.value) for a in machine.alternatives}
    assert {
        ("chip.peak_flops_per_s.bfloat16", 780e12),
        ("chip.peak_flops_per_s.bfloat16", 800e12),
        ("levels.supernode.bandwidth_bytes_per_s", 350e9),
    } <= others
