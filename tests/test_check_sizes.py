import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "check_sizes.py"))["main"]


def write(root: Path, text: str) -> Path:
    (root / "src").mkdir()
    (root / "src" / "planted.py").write_text(text)
    return root


def test_short_code_passes_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert CHECK(write(tmp_path, "def f():\n    return 1\n" * 200)) == 0
    assert capsys.readouterr().out == ""


def test_a_file_over_400_lines_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert CHECK(write(tmp_path, "x = 1\n" * 401)) == 0
    assert "src/planted.py: 401 lines" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["x = 1\n" * 601, "def f():\n" + "    x = 1\n" * 60])
def test_a_long_file_and_a_long_function_fail(text: str, tmp_path: Path):
    assert CHECK(write(tmp_path, text)) == 1
