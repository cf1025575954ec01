"""`python -m bench`: what it runs, writes and returns."""

from pathlib import Path

import pytest
from bench.__main__ import main
from bench.result import Row, Section

Capture = pytest.CaptureFixture[str]


def section(*, quick: bool) -> Section:
    rows = (Row(what=f"quick={quick}", ours=(2.0,), theirs=(1.0,), at_least=1.0, headline="it"),)
    return Section(theme="speed", title="Speed", how="", recipe={}, rows=rows)


def broken(*, quick: bool) -> Section:
    raise RuntimeError(f"no such thing, quick={quick}")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("bench.__main__.THEMES", {"speed": section, "broken": broken})
    monkeypatch.setattr("bench.__main__.REPORTS", tmp_path)
    return tmp_path


def test_a_missed_ratio_is_marked_and_is_no_failure(reports: Path, capsys: Capture):
    assert main(["speed"]) == 0
    assert "missed" in capsys.readouterr().out
    (report,) = reports.iterdir()
    assert "**missed**" in report.read_text(encoding="utf-8")


def test_what_does_not_run_fails_and_the_rest_runs(reports: Path, capsys: Capture):
    assert main([]) == 1
    assert "RuntimeError: no such thing, quick=False" in capsys.readouterr().err
    assert [path.name.partition("_")[0] for path in reports.iterdir()] == ["speed"]


def test_quick_writes_no_report(reports: Path, capsys: Capture):
    assert main(["--quick", "speed"]) == 0
    assert "quick=True" in capsys.readouterr().out
    assert not list(reports.iterdir())


@pytest.mark.usefixtures("reports")
def test_an_unknown_theme_is_refused(capsys: Capture):
    with pytest.raises(SystemExit):
        main(["sped"])
    assert "no theme sped; there are speed, broken" in capsys.readouterr().err


def test_the_readme_is_rewritten_from_the_reports(
    reports: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- measured -->\n<!-- /measured -->\n", encoding="utf-8")
    monkeypatch.setattr("bench.__main__.README", readme)
    assert main(["speed"]) == 0
    assert main(["--readme"]) == 0
    assert "| it | 0.50x" in readme.read_text(encoding="utf-8")
