"""`supernode explain`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from supernode.cli.main import call

Capture = pytest.CaptureFixture[str]

KEYS = {
    "": [
        "program",
        "layout",
        "chips",
        "mesh",
        "time",
        "stored",
        "stored_bytes",
        "activations",
        "communication",
        "totals",
        "sent_bytes",
        "memory",
    ],
    "stored": [
        "name",
        "role",
        "count",
        "dtype",
        "shape",
        "axes",
        "partial",
        "piece_shape",
        "piece_bytes",
        "bytes_per_chip",
        "stage",
        "place",
        "reason",
    ],
    "communication": ["module", "phase", "collective", "axis", "calls", "sent_bytes"],
    "totals": ["axis", "chips", "collective", "calls", "sent_bytes"],
}


def test_explain_as_json_with_a_page(tmp_path: Path, capfd: Capture) -> None:
    html = tmp_path / "layout.html"
    argv = ["explain", "gpt-tiny", "--layout", "fsdp=2,tp=2", "--json", "--html", str(html)]
    assert call(argv) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert list(document) == KEYS[""]
    for part in ("stored", "communication", "totals"):
        assert all(list(row) == KEYS[part] for row in document[part])
    assert all(list(row) == KEYS["stored"] for row in document["activations"])
    assert document["mesh"] == {"fsdp": 2, "tp": 2}
    (head,) = (row for row in document["stored"] if row["name"] == "lm_head.weight")
    assert (head["axes"], head["piece_shape"]) == ([["tp"], ["fsdp"]], [128, 32])
    sent = sum(row["sent_bytes"] for row in document["communication"])
    assert document["sent_bytes"] == pytest.approx(sent)
    in_place, by_run = (document["memory"][key]["peak_bytes"] for key in ("in_place", "by_run"))
    assert document["stored_bytes"] < in_place < by_run
    assert "planning gpt-tiny for 4 chips (fsdp=2,tp=2)" in err
    assert "gpt-tiny, laid out" in html.read_text(encoding="utf-8")


def test_the_bytes_are_those_that_a_simulation_sends(capfd: Capture) -> None:
    rest = ["gpt-tiny", "--on", "hgx-h20", "--json"]
    assert call(["explain", *rest]) == 0
    explained = json.loads(capfd.readouterr().out)
    assert call(["simulate", *rest]) == 0
    simulated = json.loads(capfd.readouterr().out)
    assert explained["layout"] == simulated["layout"] != ""
    assert explained["sent_bytes"] == pytest.approx(sum(simulated["sent_bytes"].values()))


def test_explain_as_text(capfd: Capture) -> None:
    assert call(["explain", "gpt-tiny", "--chips", "2"]) == 0
    out = capfd.readouterr().out
    assert "2 chips, layout dp=2" in out
    assert "dp all_reduce" in out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["gpt-tiny"], "give --layout fsdp=8, --chips 8 or --on cloudmatrix384"),
        (["gpt-min", "--chips", "2"], "there is no recipe 'gpt-min'"),
        (["gpt-tiny", "--layout", "fdsp=2"], "unknown axis 'fdsp'"),
        (["gpt-tiny", "--layout", "dp=2", "--chips", "4"], "2, there are 4 chips"),
        (["gpt-tiny", "--on", "hgx-h20", "--chips", "16"], "hgx-h20 has 8 chips, not 16"),
        (["gpt-tiny", "--chips", "2", "--html", "nowhere/a.html"], "can't be written"),
    ],
)
def test_what_is_refused(argv: list[str], expected: str, capfd: Capture) -> None:
    assert call(["explain", *argv]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert expected in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
