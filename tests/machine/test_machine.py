"""Chips, levels and sub-machines."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.errors import InputError, LayoutError, UnknownName
from supernode.machine import Machine, catalogue, load_machine, parse_machine

MACHINES = {name: load_machine(name) for name in catalogue()}
machines = st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__)


@st.composite
def machine_and_chips(draw: st.DrawFn) -> tuple[Machine, int]:
    machine = draw(machines)
    return machine, draw(st.integers(1, machine.chips))


@given(machine_and_chips())
def test_a_span_is_held_by_the_innermost_level_that_can(drawn: tuple[Machine, int]):
    machine, span = drawn
    level = machine.level_spanning(span)
    inner = machine.levels[: machine.levels.index(level)]
    assert level.chips >= span
    assert all(other.chips < span for other in inner)


@given(machine_and_chips())
def test_a_sub_machine_is_its_share(drawn: tuple[Machine, int]):
    machine, chips = drawn
    part = machine.with_chips(chips)
    assert part.chips == part.levels[-1].chips == chips
    assert [level.chips for level in part.levels] == sorted({level.chips for level in part.levels})
    assert part.bf16_flops_per_s == pytest.approx(machine.bf16_flops_per_s * chips / machine.chips)
    assert part.power_w.value == pytest.approx(machine.power_w.value * chips / machine.chips)
    for span in range(1, chips + 1):
        assert part.level_spanning(span).name == machine.level_spanning(span).name


def test_a_span_beyond_the_machine_is_a_layout_error():
    with pytest.raises(LayoutError) as raised:
        MACHINES["gb200-nvl72"].level_spanning(73)
    assert str(raised.value) == (
        "gb200-nvl72 has 72 chips, not 73\n  fix: use fewer chips or a larger machine"
    )


def test_an_empty_span_is_refused():
    with pytest.raises(InputError, match="a span must be of 1 chip or more, not 0"):
        MACHINES["gb200-nvl72"].level_spanning(0)


@pytest.mark.parametrize("chips", [0, 9])
def test_a_machine_has_no_more_chips_than_it_has(chips: int):
    with pytest.raises(InputError, match=f"hgx-h20 has 8 chips, can't take {chips} of them"):
        MACHINES["hgx-h20"].with_chips(chips)


def test_levels_of_cloudmatrix():
    machine = MACHINES["cloudmatrix384"]
    assert [machine.level_spanning(n).name for n in (1, 8, 9, 384)] == [
        "node",
        "node",
        "supernode",
        "supernode",
    ]
    part = machine.with_chips(64)
    assert (part.name, part.title) == (
        "cloudmatrix384:64",
        "Huawei CloudMatrix 384, 64 of 384 chips",
    )
    assert machine.with_chips(384) is machine
    assert [level.name for level in machine.with_chips(8).levels] == ["node"]


def test_half_a_mesh_keeps_the_links_inside_it():
    half = MACHINES["atlas-800t-a2"].with_chips(4).levels[0]
    assert (half.links, half.bandwidth_bytes_per_s.value) == (3, pytest.approx(3 * 28e9))
    assert half.bandwidth_bytes_per_s.kind == "inferred"
    assert MACHINES["hgx-h100"].with_chips(4).levels[0].bandwidth_bytes_per_s.value == 450e9


@pytest.mark.parametrize(
    ("name", "dtype", "unit"),
    [
        ("hgx-h100", "bfloat16", "bfloat16"),
        ("hgx-h100", "float8_e4m3fn", "float8"),
        ("hgx-h100", "float32", "float32"),
        ("hgx-h100", "int64", "vector"),
        ("hgx-h100", "bool", "vector"),
        ("hgx-h100", "float64", "vector"),
        ("cloudmatrix384", "float8", "bfloat16"),
        ("dgx-v100", "bfloat16", "float16"),
        ("dgx-v100", "tfloat32", "float32"),
        ("dgx-v100", "float8_e5m2", "float16"),
        ("atlas-800-910", "float32", "vector"),
    ],
)
def test_a_missing_type_falls_back_to_a_wider_one(name: str, dtype: str, unit: str):
    chip = MACHINES[name].chip
    expected = chip.vector_flops_per_s if unit == "vector" else chip.peak_flops_per_s[unit]
    assert chip.unit(dtype) == unit
    assert chip.peak(dtype) == expected


def test_an_unknown_dtype_is_refused():
    with pytest.raises(UnknownName) as raised:
        MACHINES["hgx-h100"].chip.peak("bfloat61")
    assert str(raised.value).startswith("unknown dtype 'bfloat61'\n  fix: did you mean bfloat16")


def test_numbers_are_keyed_as_in_the_file(example_toml: str):
    numbers = dict(parse_machine(example_toml, "example.toml").numbers())
    assert list(numbers) == [
        "chip.peak_flops_per_s.bfloat16",
        "chip.peak_flops_per_s.float16",
        "chip.vector_flops_per_s",
        "chip.matmul_efficiency",
        "chip.memory.capacity_bytes",
        "chip.memory.bandwidth_bytes_per_s",
        "chip.memory.efficiency",
        "chip.launch_overhead_s",
        "chip.power_w",
        "chip.idle_power_fraction",
        "levels.board.bandwidth_bytes_per_s",
        "levels.board.latency_s",
        "levels.board.efficiency",
        "levels.node.bandwidth_bytes_per_s",
        "levels.node.latency_s",
        "levels.node.efficiency",
        "power_w",
        "scale_out_bytes_per_s",
    ]
    assert numbers["chip.memory.capacity_bytes"].value == 64e9


def test_summary_is_json(example_toml: str):
    summary = parse_machine(example_toml, "example.toml").summary()
    assert json.loads(json.dumps(summary)) == {
        "name": "eight-chips",
        "title": "A server of eight chips",
        "chips": 8,
        "bf16_flops_per_s": 8 * 300e12,
        "bf16_dtype": "bfloat16",
        "memory_bytes": 8 * 64e9,
        "memory_bandwidth_bytes_per_s": 8 * 1.6e12,
        "scale_up_bytes_per_s": 32e9,
        "scale_out_bytes_per_s": 25e9,
        "power_w": 4e3,
        "guessed": {"count": 3, "total": 18, "share": 3 / 18},
        "sources": [
            {
                "name": "sheet",
                "title": "Example eight-chip server, data sheet",
                "url": "https://example.com/sheet",
            },
            {"name": "bench", "title": "Our own measurements", "url": ""},
            {"name": "estimate", "title": "Estimate", "url": ""},
        ],
    }


@given(machines)
def test_machines_are_values(machine: Machine):
    twin = pickle.loads(pickle.dumps(machine))
    assert twin == machine == load_machine(machine.name)
    assert hash(twin) == hash(machine)
