"""The machine file of the how-to, which the tests of this room load and damage."""

import re
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "add-a-machine.md"


@pytest.fixture(scope="session")
def example_toml() -> str:
    blocks = re.findall(r"```toml\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]
