"""The page about ops is run as it stands, and the table of ops is as the code has it."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from ops.calls import call
from ops.samples import f
from supernode.errors import UnknownOp
from supernode.ir import Site
from supernode.ops import row

ROOT = Path(__file__).resolve().parents[2]
HOWTO = (ROOT / "docs" / "howto" / "add-an-op.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", HOWTO, re.DOTALL)


def test_the_howto_does_what_it_says(capsys: pytest.CaptureFixture[str]):
    scope: dict[str, Any] = {}
    for block in _blocks("python"):
        exec(block, scope)
    assert capsys.readouterr().out == _blocks("text")[1]


def test_the_howto_starts_from_the_error_a_user_sees():
    op = call("aten.linalg_qr", f(8, 6)).op
    at = Site("model.head", "forward", "model.py:12")
    with pytest.raises(UnknownOp) as caught:
        row(type(op)(name=op.name, args=op.args, outputs=op.outputs, site=at))
    assert f"{caught.value}\n" == _blocks("text")[0]


def test_the_table_of_ops_is_current():
    spec = importlib.util.spec_from_file_location("op_table", ROOT / "tools" / "op_table.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    current = tool.PAGE.read_text(encoding="utf-8")
    assert current == tool.page(), "run `python tools/op_table.py --write`"
