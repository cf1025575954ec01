"""The pages of docs/reference are what the code says of itself."""

import importlib.util
import re
from types import ModuleType

import pytest

from docs.pages import DOCS, ROOT

FOLDER = DOCS / "reference"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_reference_is_current(tool: ModuleType, request: pytest.FixtureRequest):
    for name, text in tool.pages().items():
        path = FOLDER / name
        if request.config.getoption("--rewrite-goldens"):
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, f"{name}: `make golden` writes it"


def test_every_environment_variable_is_documented(tool: ModuleType):
    read = re.compile(r"""environ(?:\.get\(|\[)["'](\w+)["']""")
    files = (ROOT / "src").rglob("*.py")
    found = {name for file in files for name in read.findall(file.read_text(encoding="utf-8"))}
    assert found == set(tool.ENVIRONMENT)


def test_docstrings_become_lists_and_blocks(tool: ModuleType):
    doc = """One line.

    >>> 1 + 1
    2

    Raises:
        InputError: it is wrong
            in a long way.
    """
    assert tool.prose(doc) == (
        "One line.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nRaises:\n\n"
        "- `InputError`: it is wrong\n  in a long way.\n"
    )
