"""The programs that stand beside the pages run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import DOCS, ROOT

LONGEST_S = 240.0
SCRATCH = DOCS / "explain" / "from_scratch.py"


def _output(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_scratch_gives_what_one_chip_gives():
    printed = _output(str(SCRATCH))
    assert printed.startswith("captured: mm add relu mm\none chip: 77.6 us")
    assert printed.count("equal to one chip") == 2
    talks = re.findall(r"all_\w+", printed)
    assert talks == ["all_gather", "all_reduce"]


def test_from_scratch_does_without_supernode():
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(SCRATCH.read_text(encoding="utf-8")))
        for name in _imported(node)
    }
    assert imported == {"collections", "dataclasses", "threading", "typing", "torch"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_an_example_runs(example: Path):
    assert _output(str(example))
