"""Beside another active backend, a GPU's, this one stays out of the way unless asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

OTHER_DRIVER = """
from triton.backends.driver import DriverBase


class OtherDriver(DriverBase):
    @staticmethod
    def is_active():
        return True

    def map_python_to_cpp_type(self, ty): ...
    def get_current_target(self): ...
    def get_active_torch_device(self): ...
    def get_benchmarker(self): ...
"""
OTHER_COMPILER = """
from triton.backends.compiler import BaseBackend


class OtherBackend(BaseBackend):
    supports_target = staticmethod(lambda target: False)

    def hash(self): ...
    def parse_options(self, options): ...
    def add_stages(self, stages, options, language=None): ...
    def load_dialects(self, context): ...
    def get_module_map(self): ...
"""
ACTIVE = """
import triton
print(type(triton.runtime.driver.active).__name__)
"""
ACTIVATED = """
import triton_cpu
triton_cpu.activate()
print(type(triton.runtime.driver.active).__name__)
triton.runtime.driver.reset_active()
print(type(triton.runtime.driver.active).__name__)
"""

KERNELS = """
import pytest, torch, triton, triton_cpu
import triton.language as tl
from triton.backends import backends
from triton.runtime import driver

assert "cpu" in backends, "the entry point is missing: pip install --no-deps -e ."


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask=mask) + tl.load(y + i, mask=mask), mask=mask)


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0) * n, tl.arange(0, BLOCK)
    value = tl.load(x + row + i, mask=i < n, other=-float("inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(out + row + i, power / tl.sum(power, 0), mask=i < n)


@triton.jit
def square(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    at = i[:, None] * N + i[None, :]
    tile = tl.load(x + at)
    tl.store(out + at, tl.dot(tile, tile, input_precision="ieee"))


torch.manual_seed(0)
X, Y, M = torch.randn(1000), torch.randn(1000), torch.randn(64, 64)


def results(device, stage):
    x, y, m = X.to(device), Y.to(device), M.to(device)
    total, shares, product = torch.empty_like(x), torch.empty_like(x), torch.empty_like(m)
    kernels = [
        add[(4,)](x, y, total, 1000, BLOCK=256),
        softmax[(10,)](x, shares, 100, BLOCK=128),
        square[(1,)](m, product, N=64),
    ]
    assert all(stage in kernel.asm for kernel in kernels), f"no {stage}"
    return total.cpu(), shares.cpu(), product.cpu()


def agree(cpu, cuda):
    assert torch.equal(cpu[0], cuda[0]) and torch.equal(cpu[0], X + Y)
    torch.testing.assert_close(cpu[1], cuda[1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(cpu[1], X.view(10, 100).softmax(1).flatten(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(cpu[2], cuda[2], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(cpu[2], M @ M, rtol=1e-5, atol=1e-4)


def target():
    return driver.active.get_current_target().backend
"""
UNASKED = """
assert target() == "cuda"
results("cuda", "ptx")
with pytest.raises(ValueError, match="cpu tensor"):
    results("cpu", "obj")
"""
CALLED = """
first = results("cuda", "ptx")
triton_cpu.activate()
assert target() == "cpu"
agree(results("cpu", "obj"), first)
with pytest.raises(triton_cpu.ArgumentError, match="Argument x lies on cuda:0"):
    results("cuda", "ptx")
driver.reset_active()
assert target() == "cuda"
agree(first, results("cuda", "ptx"))
"""
BY_VARIABLE = """
assert target() == "cpu"
mine = results("cpu", "obj")
driver.set_active(backends["nvidia"].driver())
agree(mine, results("cuda", "ptx"))
driver.reset_active()
agree(results("cpu", "obj"), mine)
"""


@triton.jit
def double(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i) * 2)


def run(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str = "") -> str:
    """What a process of its own prints, with `TRITON_DEFAULT_BACKEND` as given."""
    monkeypatch.delenv("TRITON_DEFAULT_BACKEND", raising=False)
    if backend:
        monkeypatch.setenv("TRITON_DEFAULT_BACKEND", backend)
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installed backend, whose driver says that it is active."""
    package, metadata = tmp_path / "other_backend", tmp_path / "other_backend-1.dist-info"
    for folder in (package, metadata):
        folder.mkdir()
    (package / "driver.py").write_text(OTHER_DRIVER)
    (package / "compiler.py").write_text(OTHER_COMPILER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other_backend\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[triton.backends]\nother = other_backend\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_this_driver_is_active(tmp_path, monkeypatch):
    assert run(ACTIVE, tmp_path, monkeypatch) == "CpuDriver\n"


@pytest.mark.slow
@pytest.mark.usefixtures("other")
def test_another_active_driver_is_preferred_unless_this_one_is_asked_for(tmp_path, monkeypatch):
    unasked = run(ACTIVE + ACTIVATED, tmp_path, monkeypatch)
    assert unasked.split() == ["OtherDriver", "CpuDriver", "OtherDriver"]
    assert run(ACTIVE, tmp_path, monkeypatch, "cpu") == "CpuDriver\n"


def test_code_for_the_first_gpu_is_not_taken_for_the_cpus():
    double.device_caches[0] = ()  # where Triton keeps the former
    x = torch.randn(16)
    out = torch.empty(16)
    double[(1,)](x, out, N=16)
    assert torch.equal(out, 2 * x)


@pytest.mark.gpu
@needs_cuda
def test_cuda_stays_the_active_driver_unless_asked(tmp_path, monkeypatch):
    run(KERNELS + UNASKED, tmp_path, monkeypatch)


@pytest.mark.gpu
@needs_cuda
def test_one_process_runs_kernels_on_cuda_and_after_a_call_on_the_cpu(tmp_path, monkeypatch):
    run(KERNELS + CALLED, tmp_path, monkeypatch)


@pytest.mark.gpu
@needs_cuda
def test_the_environment_variable_chooses_the_cpu_beside_cuda(tmp_path, monkeypatch):
    run(KERNELS + BY_VARIABLE, tmp_path, monkeypatch, "cpu")
