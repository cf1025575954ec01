"""Every page is run as it stands, and shows what is printed; `make golden` writes it anew."""

import os
from pathlib import Path

import pytest

from docs.pages import ROOT, blocks, commands, current, pages

RUN = ("python", "console")


def _with_something_to_run() -> list[Path]:
    return [
        page
        for page in pages()
        if any(block.language in RUN for block in blocks(page.read_text(encoding="utf-8")))
    ]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, and a terminal of 88 columns without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "88")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    for name in set(os.environ) & {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}:
        monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "page", _with_something_to_run(), ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_a_page_shows_what_it_prints(page: Path, request: pytest.FixtureRequest):
    text = page.read_text(encoding="utf-8")
    now = current(text, page.name)
    if request.config.getoption("--rewrite-goldens"):
        page.write_text(now, encoding="utf-8")
        text = now
    assert now == text, "look at it; if it is right, `make golden` writes it"


def test_a_page_that_shows_something_else_is_found():
    page = "```python\nprint(1 + 1)\n```\n\n```text output\n3\n```\n"
    assert current(page, "page") == page.replace("3", "2")


def test_what_varies_stays_as_it_is_shown():
    page = "```python\nprint(1 + 1)\n```\n\n```text output varies\n3\n```\n"
    assert current(page, "page") == page


def test_a_block_without_its_output_is_found():
    with pytest.raises(AssertionError, match="line 5: nothing was printed"):
        current("```python\nx = 1\n```\n```text output\n1\n```\n", "page")


def test_a_console_block_is_taken_apart_command_by_command():
    (block,) = blocks("```console\n$ supernode one\na\nb\n$ supernode two\nc\n```\n")
    assert commands(block) == [("supernode one", "a\nb\n"), ("supernode two", "c\n")]
