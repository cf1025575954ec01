"""Liger-Kernel's ops, forward and backward, where it is installed (`make test-triton` does)."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "triton_liger.py"


@pytest.mark.slow
def test_every_op_of_liger_agrees_with_torch():
    pytest.importorskip("liger_kernel", reason="needs liger-kernel: pip install liger-kernel")
    done = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
