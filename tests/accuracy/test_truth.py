from collections import Counter
from pathlib import Path

import pytest

from accuracy.rows import row
from supernode.accuracy import DATA, load_truth
from supernode.errors import InputError


def test_every_row_and_every_column_is_kept():
    rows = load_truth()
    counts = Counter(each.table for each in rows)
    assert counts == {"training": 314, "serving": 176, "comm": 278, "ops": 16}
    for table in counts:
        head = (DATA / f"{table}.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
        kept = {tuple(each.columns) for each in rows if each.table == table}
        assert kept == {tuple(head)}


def test_an_empty_cell_is_not_zero():
    found = row("sc21-01")
    assert found.number("micro_batch") is None
    assert found.count("micro_batch", 7) == 7
    assert found.number("measured_step_s") == 3.528
    assert found.text("no such column") == ""


def test_the_note_is_read_by_key():
    assert row("kor-01").noted_number("net") == 25
    assert row("fms-01").noted("sharding") == "HSDP"
    assert row("mb-008").noted_number("gflop_per_token") == 23.01
    assert row("kor-01").noted("hfu") == ""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("id,source\n", "there is no column 'machine'"),
        (
            "id,source,machine,op,shape,utilisation\na,s,m,x,,\na,s,m,x,,\n",
            "two rows are called a",
        ),
    ],
)
def test_a_malformed_folder_is_refused(tmp_path: Path, text: str, wrong: str):
    (tmp_path / "ops.csv").write_text(text)
    with pytest.raises(InputError, match=wrong):
        load_truth(tmp_path)


def test_a_folder_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="there are no rows in"):
        load_truth(tmp_path)


def test_a_cell_that_is_no_number_names_its_row(tmp_path: Path):
    (tmp_path / "ops.csv").write_text(
        "id,source,machine,op,shape,utilisation\na,s,m,x,,much\n", encoding="utf-8"
    )
    (found,) = load_truth(tmp_path)
    with pytest.raises(InputError, match="expected a number, got 'much'") as caught:
        found.number("utilisation")
    assert "ops.csv, a, utilisation" in caught.value.where
