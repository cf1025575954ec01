"""Machine files by name and by path, and what is said about wrong ones."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.errors import MachineFileError, UnknownName
from supernode.machine import load_machine, parse_machine

BANDWIDTH = "bandwidth_bytes_per_s = {value = 1.6e12"
FRACTION = "expected a number above 0 and at most 1, got "

# What to replace in the good file, with what; then key and text of the error.
WRONG_FILES = [
    ("vendor =", "vendr =", "vendr", "unknown key\n  fix: did you mean vendor?"),
    ('vendor = "Example"', "", "vendor", "missing key"),
    ('"Example"', "7", "vendor", "expected a string, got 7"),
    ("chips = 8", "chips = 8.0", "chips", "expected a whole number of 1 or more, got 8.0"),
    ("chips = 8", "chips = true", "chips", "expected a whole number of 1 or more, got True"),
    ("chips = 8", "chips = 16", "chips", "16, but the last level holds 8"),
    ("{value = 64e9", "{value = -64e9", "chip.memory.capacity_bytes.value", "above 0, got -6"),
    ("{value = 64e9", "{value = 0", "chip.memory.capacity_bytes.value", "above 0, got 0"),
    ("{value = 64e9", "{value = nan", "chip.memory.capacity_bytes.value", "above 0, got nan"),
    ("{value = 64e9", "{value = inf", "chip.memory.capacity_bytes.value", "above 0, got inf"),
    (
        "{value = 64e9",
        "{value = 1" + "0" * 400,
        "chip.memory.capacity_bytes.value",
        "above 0, got 1",
    ),
    (
        "{value = 64e9",
        '{value = "64 GB"',
        "chip.memory.capacity_bytes.value",
        "expected a number above 0, got the string '64 GB'",
    ),
    ("{value = 0.85", "{value = 85", "chip.memory.efficiency.value", FRACTION + "85"),
    ("{value = 3e-6", "{value = -1", "chip.launch_overhead_s.value", "of 0 or more, got -1"),
    ("{value = 400,", "{value = [4],", "chip.power_w.value", "expected a number above 0, got an"),
    (
        BANDWIDTH,
        BANDWIDTH.replace("bandwidth", "bandwith"),
        "chip.memory.bandwith_bytes_per_s",
        "unknown key\n  fix: did you mean bandwidth_bytes_per_s or",
    ),
    (
        'source = "bench", date = "2026-04-01", kind = "measured"}\nlaunch',
        'date = "2026-04-01", kind = "measured"}\nlaunch',
        "chip.matmul_efficiency.source",
        "missing key",
    ),
    (
        'source = "bench", date = "2026-04-01", kind = "measured"}\nlaunch',
        'source = "bensh", date = "2026-04-01", kind = "measured"}\nlaunch',
        "chip.matmul_efficiency.source",
        "'bensh' is not in [sources]\n  fix: did you mean bench?",
    ),
    (
        'kind = "measured"}\nlaunch',
        'kind = "mesured"}\nlaunch',
        "chip.matmul_efficiency.kind",
        "expected one of datasheet, measured, inferred, guessed, got 'mesured'",
    ),
    (
        'date = "2026-04-01", kind = "measured"}\nlaunch',
        'date = "1.4.2026", kind = "measured"}\nlaunch',
        "chip.matmul_efficiency.date",
        "expected a date as YYYY-MM-DD, YYYY-MM or YYYY, got '1.4.2026'",
    ),
    (
        'date = "2026-04-01", kind = "measured"}\nlaunch',
        'date = "2026-02-30", kind = "measured"}\nlaunch',
        "chip.matmul_efficiency.date",
        "got '2026-02-30'",
    ),
    ("{value = 4e3,", "4000 #", "power_w", "expected a table, got 4000"),
    (
        "\nfloat16 = {value",
        "\nfp16 = {value",
        "chip.peak_flops_per_s.fp16",
        "unknown key\n  fix: did you mean",
    ),
    ("chips = 4", "chips = 8", "levels[1].chips", "expected more than the 8 of the level before"),
    ("chips = 4", "chips = 3", "levels[1].chips", "8 chips are no whole number of"),
    ('name = "node"', 'name = "board"', "levels[1].name", "there are two levels 'board'"),
    ('"mesh" ', '"torus" ', "levels[0].topology", "expected one of switch, mesh, cube-mesh"),
    ("links = 3", "links = 0", "levels[0].links", "expected a whole number of 1 or more, got 0"),
    (
        "s.bfloat16",
        "s.bfloat",
        "alternatives[0].key",
        "the machine has no number 'chip.peak_flops_per_s.bfloat'"
        "\n  fix: did you mean chip.peak_flops_per_s.bfloat16",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "key", "text"), WRONG_FILES, ids=[key for _, _, key, _ in WRONG_FILES]
)
def test_a_wrong_file_is_refused_with_its_key(
    example_toml: str, old: str, new: str, key: str, text: str
):
    assert old in example_toml
    with pytest.raises(MachineFileError) as raised:
        parse_machine(example_toml.replace(old, new, 1), "my.toml")
    where = f"\n  where: my.toml, key {key}"
    assert where in str(raised.value)
    assert text in str(raised.value).replace(where, "")


@given(
    line=st.integers(0, 100),
    junk=st.sampled_from(["", "[x]", "{}", "[]", "[1]", "''", "true", "-0.0", "1" * 400, "1e999"]),
    at=st.sampled_from(["= ", "value = ", "source = ", "date = ", "kind = "]),
)
def test_a_damaged_file_never_fails_otherwise(example_toml: str, line: int, junk: str, at: str):
    lines = example_toml.splitlines()
    line %= len(lines)
    before, found, after = lines[line].partition(at)
    lines[line] = before + found + junk + after[len(after.split(",")[0]) :] if found else junk
    with contextlib.suppress(MachineFileError):
        parse_machine("\n".join(lines), "my.toml")


def test_the_whole_message(example_toml: str):
    with pytest.raises(MachineFileError) as raised:
        parse_machine(example_toml.replace("efficiency =", "eficiency =", 1), "my.toml")
    assert str(raised.value) == (
        "unknown key\n"
        "  where: my.toml, key chip.matmul_eficiency\n"
        "  fix: did you mean matmul_efficiency?"
    )


def test_a_syntax_error_names_its_line():
    with pytest.raises(MachineFileError) as raised:
        parse_machine('name = "x"\nchips = = 8\n', "my.toml")
    assert str(raised.value) == (
        "not valid TOML: Invalid value (at line 2, column 9)\n  where: my.toml"
    )


def test_a_chip_has_some_peak(example_toml: str):
    lines = example_toml.splitlines(keepends=True)
    without = "".join(line for line in lines if not line.startswith(("bfloat16 =", "float16 =")))
    with pytest.raises(MachineFileError, match="expected one or more of float4, float8") as raised:
        parse_machine(without, "my.toml")
    assert raised.value.where == "my.toml, key chip.peak_flops_per_s"


def test_levels_are_an_array_of_tables(example_toml: str):
    head = example_toml[: example_toml.index("[[levels]]")]
    with pytest.raises(MachineFileError, match="missing key"):
        parse_machine(head, "my.toml")
    with pytest.raises(MachineFileError, match=r"expected \[\[levels\]\] tables, got a table"):
        parse_machine(f"{head}[levels]\nchips = 8", "my.toml")


def test_a_file_is_loaded_by_its_path(tmp_path: Path, example_toml: str):
    path = tmp_path / "eight-chips.toml"
    path.write_text(example_toml, encoding="utf-8")
    machine = load_machine(path)
    assert machine == load_machine(str(path)) == parse_machine(example_toml, "")
    assert (machine.name, machine.chips, len(machine.levels)) == ("eight-chips", 8, 2)


def test_optional_keys_may_be_left_out(example_toml: str):
    lines = example_toml[: example_toml.index("[[alternatives]]")].splitlines(keepends=True)
    optional = ("chip_unit", "notes", "scale_out_bytes_per_s")
    machine = parse_machine("".join(x for x in lines if not x.startswith(optional)), "my.toml")
    assert (machine.chip_unit, machine.notes, machine.alternatives) == ("chip", "", ())
    assert machine.summary()["scale_out_bytes_per_s"] is None


def test_a_missing_file_is_named(tmp_path: Path):
    path = tmp_path / "none.toml"
    with pytest.raises(MachineFileError) as raised:
        load_machine(path)
    assert str(raised.value) == f"can't read it: No such file or directory\n  where: {path}"


def test_a_file_that_is_not_text_is_named(tmp_path: Path):
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(MachineFileError, match="not UTF-8 text: invalid start byte"):
        load_machine(path)


def test_an_unknown_name_gets_its_near_matches():
    with pytest.raises(UnknownName) as raised:
        load_machine("cloudmatrix")
    assert str(raised.value) == (
        "no machine 'cloudmatrix' in the catalogue\n"
        "  fix: did you mean cloudmatrix384? (a file is named by a path to a .toml)"
    )
