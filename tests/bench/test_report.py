"""The report holds all it takes to judge a number; the README's table is copied from it."""

from pathlib import Path

import pytest
from bench.host import Conditions, versions
from bench.readme import headlines, newest, updated
from bench.report import markdown, write
from bench.result import Row, Section

from supernode.calibrate import Hardware

HARDWARE = Hardware(model="AMD EPYC 9B14", cores=2, memory_bytes=16_000_000_000)
QUIET = Conditions(
    load_before=0.25, load_after=1.5, others_share=0.125, stolen_share=0.0, wall_s=61.0
)
SECTION = Section(
    theme="speed",
    title="Speed",
    how="Side by side.",
    recipe={"batch": 8},
    rows=(
        Row(what="a", ours=(1.0,), theirs=(2.0,), at_least=1.0, headline="step of a"),
        Row(what="b", ours=(2.0,), theirs=(1.0,), at_least=1.0, headline="step of b"),
        Row(what="c", ours=(0.5,)),
    ),
    notes=("the loss agrees",),
)
README = "# name\n\n<!-- measured -->\n| old |\n<!-- /measured -->\n\nmore\n"


@pytest.fixture
def report() -> str:
    return markdown(SECTION, HARDWARE, {"torch": "2.13"}, QUIET, "2026-11-24")


@pytest.mark.parametrize(
    "text",
    [
        "- date: 2026-11-24",
        "AMD EPYC 9B14, 2 cores, 16 GB of memory",
        "torch 2.13",
        "0.25 before, 1.50 after",
        "other processes used 12.5% of the cores",
        "Side by side.",
        '"batch": 8',
        "| a | 2.00x (1 s against 2 s) | 2.00 to 2.00x | ≥ 1x | met |",
        "| b | 0.50x (2 s against 1 s) | 0.50 to 0.50x | ≥ 1x | **missed** |",
        "| c | 500 ms | 500 ms to 500 ms |  |  |",
        "| a | 1 s | 2 s |",
        "- the loss agrees",
    ],
)
def test_a_report_says(report: str, text: str):
    assert text in report


def test_a_report_is_named_by_theme_hardware_and_date(tmp_path: Path):
    path = write(SECTION, tmp_path / "reports", "2026-11-24", QUIET)
    assert path.name == f"speed_{Hardware.here().slug}_2026-11-24.md"
    assert f"supernode {versions()['supernode']}" in path.read_text(encoding="utf-8")


def test_the_slug_of_hardware_is_fit_for_a_file_name():
    odd = Hardware(model="Intel(R) Xeon(R) @ 2.20GHz", cores=4, memory_bytes=1)
    assert odd.slug == "intel-r-xeon-r-2-20ghz-4-cores"


def test_headlines_reach_the_readme(report: str, tmp_path: Path):
    path = tmp_path / "speed_x_2026-11-24.md"
    path.write_text(report, encoding="utf-8")
    text = updated(README, headlines([path]))
    assert text == (
        "# name\n\n<!-- measured -->\n"
        "| what | result | how |\n| --- | --- | --- |\n"
        "| step of a | 2.00x (1 s against 2 s) | AMD EPYC 9B14, 2 cores, 2026-11-24: a |\n"
        "| step of b | 0.50x (2 s against 1 s); wanted ≥ 1x "
        "| AMD EPYC 9B14, 2 cores, 2026-11-24: b |\n"
        "<!-- /measured -->\n\nmore\n"
    )
    assert updated(text, headlines([path])) == text


def test_a_report_without_headlines_adds_no_row(tmp_path: Path):
    path = tmp_path / "speed_x_2026-11-24.md"
    path.write_text("# Speed\n", encoding="utf-8")
    assert headlines([path]) == []


def test_the_newest_report_of_each_theme_counts(tmp_path: Path):
    for name in ("a_z_2026-01-02", "a_b_2026-11-24", "b_z_2025-12-31"):
        (tmp_path / f"{name}.md").touch()
    found = [path.stem for path in newest(tmp_path, ("b", "a", "c"))]
    assert found == ["b_z_2025-12-31", "a_b_2026-11-24"]


def test_a_readme_without_the_marks_is_left_alone():
    with pytest.raises(AssertionError, match="expected one <!-- measured -->"):
        updated("# name\n", [])
