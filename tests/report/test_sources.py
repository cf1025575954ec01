"""One machine in full: nothing of it is cut, however narrow the text."""

import pytest

from supernode.machine import load_machine
from supernode.report import as_text
from supernode.report.sources import sources_report


@pytest.mark.parametrize("width", [80, 120])
def test_no_key_is_cut(width: int) -> None:
    machine = load_machine("cloudmatrix384")
    text = as_text(sources_report(machine), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("datasheet") == sum(n.kind == "datasheet" for _, n in machine.numbers())
