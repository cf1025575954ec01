"""torch is not required: NumPy arrays, autotuning and errors in a process that can't import it."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")

SCRIPT = """
import sys



class NoTorch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("torch is missing here")


sys.meta_path.insert(0, NoTorch)

import numpy as np
import triton
import triton.language as tl
import triton_cpu

triton_cpu.activate()


@triton.autotune(configs=[triton.Config({"BLOCK": size}) for size in (64, 256)], key=["n"])
@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask=mask) + tl.load(y + i, mask=mask), mask=mask)


x, y = np.arange(1000, dtype=np.float32), np.ones(1000, np.float32)
out = np.zeros_like(x)
grid = lambda meta: (triton.cdiv(1000, meta["BLOCK"]),)
add_kernel[grid](x, y, out, 1000)
assert np.array_equal(out, x + y)
try:
    add_kernel[grid](x[::2], y, out, 500)
except triton_cpu.ArgumentError as error:
    print(error.wrong)
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_kernels_run_on_numpy_arrays_where_torch_is_missing(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Argument x is a NumPy array that is not contiguous.\n"


@pytest.mark.parametrize("mode", ["mean", "median", "min", "max"])
def test_times_are_summed_up_as_asked(mode):
    from triton_cpu.runtime.timing import do_bench

    every = do_bench(lambda: None, warmup=0, rep=0, return_mode="all")
    assert len(every) == 3
    assert 0 < do_bench(lambda: None, warmup=0, rep=0, return_mode=mode) < 1000


def test_quantiles_are_numpys(monkeypatch):
    from triton_cpu.runtime import timing

    times = [3.0, 1.0, 2.0, 7.0]
    monkeypatch.setattr(timing, "_run_for", lambda fn, milliseconds: times)
    found = timing.do_bench(lambda: None, quantiles=(0.5, 0.2, 0.8))
    assert np.allclose(found, np.quantile(times, (0.5, 0.2, 0.8)))
