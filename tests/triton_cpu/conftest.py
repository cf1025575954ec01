"""Tests of the Triton backend need triton and llvmlite (extra `kernels`), else they skip."""

import pytest


@pytest.fixture(autouse=True)
def cpu_backend(tmp_path_factory, monkeypatch):
    """The backend in use, with a cache of its own and two threads."""
    for name in ("triton", "llvmlite"):
        pytest.importorskip(name, reason=f"needs {name}: pip install '.[kernels]'")
    import triton_cpu

    cache = tmp_path_factory.getbasetemp() / "triton-cache"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setenv("TRITON_CPU_NUM_THREADS", "2")
    triton_cpu.activate()
