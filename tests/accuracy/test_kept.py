"""What is kept is asked for again when something changes that it depends on."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from accuracy.rows import row
from supernode.accuracy import predict
from supernode.accuracy.case import Case
from supernode.accuracy.kept import CAPTURING, PREDICTING, Kept, Prediction, code_version
from supernode.accuracy.links import collective_case
from supernode.accuracy.predict import machine_for

FOUND = Prediction(time_s=2.0, low_s=1.0, high_s=3.0, fits=True, causes_s={"comm": 2.0})
CASE = replace(collective_case(row("nccl-a100-all-reduce-8-1024")), machine="2xhgx-a100")


def test_an_answer_is_kept_by_what_is_asked_and_by_its_machine(tmp_path: Path):
    kept = Kept(tmp_path, machine_for)
    assert kept.answer(CASE) is None
    kept.keep(CASE, FOUND)
    assert kept.answer(replace(CASE, id="another", measured_s=9.0)) == FOUND
    assert kept.answer(replace(CASE, machine="hgx-h100")) is None
    assert kept.answer(replace(CASE, network_bytes_per_s=1e9)) is None

    def faster(case: Case):
        machine = machine_for(case)
        return replace(machine, levels=machine.levels[:-1])

    assert Kept(tmp_path, faster).answer(CASE) is None
    assert Kept(None, machine_for).answer(CASE) is None


def test_a_reason_is_an_answer_too(tmp_path: Path):
    kept = Kept(tmp_path, machine_for)
    unknown = replace(CASE, machine="no-such-machine")
    kept.keep(unknown, "UnknownName: there is no machine")
    assert kept.answer(unknown) == "UnknownName: there is no machine"


@pytest.mark.parametrize(
    ("asked", "parts", "only_tables"),
    [
        ("supernode.capture, supernode.models", CAPTURING, ("ops", "plan", "machine", "trace")),
        ("supernode.accuracy.predict", PREDICTING, ()),
    ],
)
def test_the_code_of_an_answer_is_all_that_is_loaded_for_it(
    asked: str, parts: tuple[str, ...], only_tables: tuple[str, ...]
):
    """`only_tables` are loaded with kernels and give a captured Program nothing; `partition` and
    `simulate` come with the package."""
    code = f"import sys, {asked}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    ours = {name.split(".", 1)[1] for name in loaded.stdout.split() if "supernode." in name}
    known = {part.removesuffix(".py").replace("/", ".") for part in parts} | {*only_tables}
    left = {name for name in ours if not any(f"{name}.".startswith(f"{each}.") for each in known)}
    rows = {"accuracy", *(name for name in left if name.startswith("accuracy."))}
    package = {name for name in left if name.split(".")[0] in ("partition", "simulate")}
    assert left <= rows | (package if only_tables else set())


def test_another_state_of_the_code_is_another_version():
    assert code_version(CAPTURING) != code_version(PREDICTING)
    assert code_version(("units.py",)) != code_version(("errors.py",))


def test_a_prediction_depends_on_all_of_this_room_that_it_is_made_by():
    """What a case says is asked for itself."""
    source = Path(predict.__file__).read_text(encoding="utf-8")
    used = set(re.findall(r"from supernode\.accuracy\.(\w+) import", source)) - {"case", "kept"}
    assert {f"accuracy/{name}.py" for name in used} <= set(PREDICTING)
