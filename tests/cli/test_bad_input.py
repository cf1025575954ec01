"""Bad input: one clear error, exit code 2, no traceback."""

from pathlib import Path

import pytest

from supernode.cli.main import call, spread_options

CASES = {
    "unknown recipe": (
        ["run", "gpt-min"],
        ["there is no recipe 'gpt-min'", "did you mean gpt-mini"],
    ),
    "unknown machine": (
        ["simulate", "gpt-tiny", "--on", "cloudmatrix"],
        ["no machine 'cloudmatrix'", "did you mean cloudmatrix384?"],
    ),
    "a recipe without data": (
        ["run", "llama3-8b"],
        ["simulated but not trained", "supernode simulate llama3-8b"],
    ),
    "axes that do not multiply to the chips": (
        ["run", "gpt-tiny", "--chips", "2", "--layout", "dp=2,tp=2"],
        ["2 x 2 = 4, there are 2 chips", "choose sizes whose product is 2"],
    ),
    "a malformed layout": (
        ["run", "gpt-tiny", "--layout", "dp=x"],
        ["expected NAME=SIZE, got 'dp=x'"],
    ),
    "an unknown axis": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--layout", "fdsp=2"],
        ["unknown axis 'fdsp'", "did you mean fsdp"],
    ),
    "an axis twice": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--layout", "dp=2,dp=2"],
        ["dp is named twice"],
    ),
    "a layout with more chips than heads": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--layout", "tp=8"],
        ["tp=8 leaves chips without a part of dim", "which splits in 4 equal units"],
    ),
    "a layout with more chips than sequences": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--layout", "dp=8", "--batch", "7"],
        ["dp=8 leaves chips without a part of dim 0 of tokens"],
    ),
    "more chips than the machine has": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--chips", "16"],
        ["hgx-h20 has 8 chips, not 16"],
    ),
    "a saved Program that is not there": (
        ["simulate", "none.json", "--on", "hgx-h20"],
        ["there is no file none.json"],
    ),
    "an output that can't be written": (
        ["simulate", "gpt-tiny", "--on", "hgx-h20", "--trace", "nowhere/trace.json"],
        ["nowhere/trace.json can't be written"],
    ),
    "an unknown command": (["trian"], ["No such command 'trian'"]),
    "a missing machine": (["simulate", "gpt-tiny"], ["Missing option '--on'"]),
    "no steps": (["run", "gpt-tiny", "--steps", "0"], ["--steps"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv, expected = CASES[name]
    assert call(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    for text in expected:
        assert text in err
    assert "Traceback" not in err


def test_more_chips_than_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "gpt-tiny", "--chips", "900"]) == 2
    assert "memory" in capfd.readouterr().err


def test_a_malformed_machine_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("name = 'mine'\nchips = -4\n")
    assert call(["simulate", "gpt-tiny", "--on", str(file)]) == 2
    err = capfd.readouterr().err
    assert "mine.toml" in err
    assert "key" in err


def test_a_file_that_is_no_program(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "saved.json"
    file.write_text('{"format": "something else"}')
    assert call(["simulate", str(file), "--on", "hgx-h20"]) == 2
    assert "supernode-program-1" in capfd.readouterr().err


def test_ctrl_c_says_so(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("supernode.cli.machines.catalogue", interrupted)
    assert call(["machines"]) == 130
    out, err = capfd.readouterr()
    assert out.strip() == ""
    assert "stopped by Ctrl-C" in err
    assert "Traceback" not in err


def test_on_takes_several_names() -> None:
    words = ["compare", "gpt-tiny", "--on", "a", "b", "--chips", "2", "--json"]
    spread = ["compare", "gpt-tiny", "--on", "a", "--on", "b", "--chips", "2", "--json"]
    assert spread_options(words) == spread
