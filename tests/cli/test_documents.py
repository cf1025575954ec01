"""What the commands print: one JSON document on stdout, progress on stderr; pages and traces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supernode.cli.main import call

Capture = pytest.CaptureFixture[str]


def test_machines_as_json(capfd: Capture) -> None:
    assert call(["machines", "--json"]) == 0
    machines = {each["name"]: each for each in json.loads(capfd.readouterr().out)}
    assert machines.keys() >= {
        "cloudmatrix384",
        "gb200-nvl72",
        "hgx-h100",
        "hgx-h800",
        "hgx-h20",
        "hgx-h200",
        "hgx-a100",
        "dgx-v100",
        "atlas-800t-a2",
        "atlas-800-910",
    }
    cm384, nvl72 = machines["cloudmatrix384"], machines["gb200-nvl72"]
    assert cm384["chips"] == 384
    assert {"memory_bytes", "power_w", "memory_bandwidth_bytes_per_s"} <= cm384.keys()
    ratio = cm384["bf16_flops_per_s"] / nvl72["bf16_flops_per_s"]
    assert ratio == pytest.approx(1.604, abs=0.001)


def test_machines_as_a_table(capfd: Capture) -> None:
    assert call(["machines"]) == 0
    assert "cloudmatrix384" in capfd.readouterr().out
    assert call(["machines", "cloudmatrix384"]) == 0
    out = capfd.readouterr().out
    assert "arxiv.org/abs/2506.12708" in out


def test_simulate_as_json_with_trace_page_and_program(tmp_path: Path, capfd: Capture) -> None:
    files = {name: tmp_path / name for name in ("trace.json", "page.html", "program.json")}
    argv = ["simulate", "gpt-tiny", "--on", "cloudmatrix384", "--layout", "dp=2,tp=2", "--json"]
    argv += ["--trace", str(files["trace.json"]), "--html", str(files["page.html"])]
    argv += ["--save-program", str(files["program.json"])]
    assert call(argv) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["chips"] == 4
    assert document["fits"] is True
    assert document["step_s"] > 0
    assert "planning gpt-tiny" in err
    assert json.loads(files["trace.json"].read_text())["traceEvents"]
    assert "<html" in files["page.html"].read_text()[:200].lower()
    # The saved Program gives the same answer, and needs no torch.
    argv = ["simulate", str(files["program.json"]), "--on", "cloudmatrix384"]
    again = _without_torch([*argv, "--layout", "dp=2,tp=2", "--json"])
    assert again == document


def test_a_limit_of_memory_counts_what_software_holds(tmp_path: Path, capfd: Capture) -> None:
    """The plan that is chosen is one that the report says to be within."""
    saved = str(tmp_path / "program.json")

    def asked(subject: str, *more: str) -> tuple[str, float]:
        argv = ["simulate", subject, "--on", "hgx-h100", "--layout", "dp=1", "--no-what-if"]
        assert call([*argv, "--json", *more]) == 0, capfd.readouterr().err
        found = json.loads(capfd.readouterr().out)
        held = found["memory"]
        assert found["fits"]
        return found["layout"], held["reserved_bytes"] + held["outside_bytes"]

    layout, taken = asked("gpt-mini", "--save-program", saved)
    assert asked(saved, "--memory", f"{taken / 1e6:.6f}MB") == (layout, taken)
    other, less = asked(saved, "--memory", f"{taken / 1e6 - 1:.6f}MB")
    assert other.startswith("recompute=")
    assert less <= taken - 1e6


def _without_torch(argv: list[str]) -> object:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from supernode.cli.main import call\n"
        f"sys.exit(call({argv!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compare(capfd: Capture) -> None:
    argv = ["compare", "gpt-tiny", "--on", "hgx-h20", "gb200-nvl72", "--chips", "4"]
    assert call([*argv, "--json"]) == 0
    documents = json.loads(capfd.readouterr().out)
    assert [each["machine"] for each in documents] == ["hgx-h20", "gb200-nvl72"]
    assert call(argv) == 0
    assert "gb200-nvl72" in capfd.readouterr().out


def test_what_does_not_fit_is_reported_with_numbers(capfd: Capture) -> None:
    argv = ["simulate", "llama-tiny", "--on", "dgx-v100", "--layout", "dp=8", "--batch", "400000"]
    assert call(argv) == 0
    out = capfd.readouterr().out
    assert "does not fit" in out
    assert "activations" in out
    assert call([*argv, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["fits"] is False
    assert document["step_s"] is None


def test_a_locale_without_the_signs_of_units_is_no_error() -> None:
    code = "from supernode.cli import main; main(['simulate', 'gpt-tiny', '--on', 'hgx-h20'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step time" in done.stdout


@pytest.mark.slow
def test_run_as_json(tmp_path: Path, capfd: Capture) -> None:
    trace = tmp_path / "trace.json"
    argv = ["run", "gpt-tiny", "--chips", "2", "--steps", "12", "--json", "--trace", str(trace)]
    assert call(argv) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["chips"] == 2
    assert document["layout"] == "dp=2"
    assert len(document["losses"]) == 12
    assert document["losses"][-1] < document["losses"][0] - 0.5
    assert document["tokens_per_s"] > 0
    assert document["sample"]
    assert "step 10/12" in err
    assert json.loads(trace.read_text())["traceEvents"]
