"""Whole path: stock `@triton.jit` kernels on torch tensors and NumPy arrays."""

import os
import threading

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
pytest.importorskip("llvmlite", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")


@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    tl.store(out + i, tl.load(x + i, mask=mask) + tl.load(y + i, mask=mask), mask=mask)


@triton.jit
def softmax_kernel(x, out, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    values = tl.load(x + row * n + i, mask=i < n, other=-float("inf"))
    exponentials = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * n + i, exponentials / tl.sum(exponentials, 0), mask=i < n)


@triton.jit
def program_ids(out):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    nx, ny = tl.num_programs(0), tl.num_programs(1)
    tl.store(out + x + nx * (y + ny * z), 100 * x + 10 * y + z)


@triton.jit
def scale_pair(pair, factor, out):
    i = tl.arange(0, 8)
    tl.store(out + i, tl.load(pair[0] + i) * factor + tl.load(pair[1] + i))


def test_vector_add_on_tensors():
    x, y = torch.randn(1000), torch.randn(1000)
    out = torch.full((1024,), 7.0)
    add_kernel[(4,)](x, y, out, 1000, BLOCK=256)
    assert torch.equal(out[:1000], x + y)
    assert torch.equal(out[1000:], torch.full((24,), 7.0)), "masked lanes were written"


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "int64", "uint16"])
def test_vector_add_on_numpy_arrays(dtype):
    x = np.arange(77).astype(dtype)
    out = np.zeros(77, dtype)
    add_kernel[(2,)](x, x, out, np.int32(77), BLOCK=64)
    assert np.array_equal(out, x + x)


@pytest.mark.parametrize("columns", [1, 17, 100, 1024, 3000])
def test_softmax(columns):
    x = torch.randn(13, columns)
    out = torch.empty_like(x)
    softmax_kernel[(13,)](x, out, columns, BLOCK=triton.next_power_of_2(columns))
    torch.testing.assert_close(out, torch.softmax(x, 1))


def test_every_program_of_a_grid_runs_once():
    out = torch.full((5 * 4 * 3,), -1, dtype=torch.int32)
    program_ids[(5, 4, 3)](out)
    expected = [100 * x + 10 * y + z for z in range(3) for y in range(4) for x in range(5)]
    assert out.tolist() == expected


def test_tuples_of_tensors_are_arguments():
    a, b, out = torch.randn(8), torch.randn(8), torch.empty(8)
    scale_pair[(1,)]((a, b), 2.5, out)
    torch.testing.assert_close(out, a * 2.5 + b)
    scale_pair[(1,)]((a.numpy(), b.numpy()), np.float32(2.5), out.zero_().numpy())
    torch.testing.assert_close(out, a * 2.5 + b)


def test_stages_are_visible():
    x = torch.randn(64)
    kernel = add_kernel[(1,)](x, x, torch.empty(64), 64, BLOCK=64)
    assert [stage for stage in kernel.asm if stage != "source"] == [
        *("ttir", "tile", "llir", "asm", "obj")
    ]
    assert "tt.load" in kernel.asm["ttir"]
    assert "f32[64] = load" in kernel.asm["tile"]
    assert "define void @triton_cpu_kernel" in kernel.asm["llir"]
    assert "triton_cpu_kernel:" in kernel.asm["asm"]
    assert kernel.asm["obj"][:4] == b"\x7fELF"


def test_a_second_process_finds_the_kernel_in_the_cache(monkeypatch):
    from triton_cpu.runtime import codegen

    x = torch.randn(32)
    add_kernel[(1,)](x, x, torch.empty(32), 32, BLOCK=32)
    add_kernel.device_caches.clear()  # as in a new process

    def refuse(text):
        raise AssertionError("compiled again")

    monkeypatch.setattr(codegen, "to_assembly", refuse)
    out = torch.empty(32)
    add_kernel[(1,)](x, x, out, 32, BLOCK=32)
    assert torch.equal(out, x + x)


def test_damaged_code_in_the_cache_is_refused(tmp_path, monkeypatch):
    import triton_cpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    x = torch.randn(32)

    def launch():
        triton.JITFunction(add_kernel.fn)[(1,)](x, x, torch.empty(32), 32, BLOCK=32)

    launch()
    (code,) = tmp_path.glob("*/*.obj")
    code.write_bytes(code.read_bytes()[:100])
    with pytest.raises(triton_cpu.CompileError, match=r"cache is damaged\.\n  where: kernel add_"):
        launch()


def test_launch_hooks_run_around_the_kernel():
    seen = []
    triton.knobs.runtime.launch_enter_hook.add(lambda data: seen.append(data.get()["name"]))
    try:
        x = torch.randn(16)
        add_kernel[(1,)](x, x, torch.empty(16), 16, BLOCK=16)
    finally:
        triton.knobs.runtime.launch_enter_hook.calls.clear()
    assert seen == ["add_kernel"]


def test_launches_from_several_python_threads():
    x = torch.randn(4096)
    outs = [torch.zeros(4096) for _ in range(4)]

    def work(out):
        for _ in range(50):
            add_kernel[(16,)](x, x, out, 4096, BLOCK=256)

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(out, x + x) for out in outs)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_launch_in_the_child_of_a_fork():
    x, out = np.arange(4096.0), np.zeros(4096)
    add_kernel[(16,)](x, x, out, 4096, BLOCK=256)  # starts the workers here
    child = os.fork()
    if child == 0:
        add_kernel[(16,)](x, out, out, 4096, BLOCK=256)
        os._exit(0 if np.array_equal(out, 3 * x) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_autotune_and_heuristics():
    @triton.autotune(configs=[triton.Config({"BLOCK": size}) for size in (64, 256)], key=["n"])
    @triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
    @triton.jit
    def tuned(x, out, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        if EVEN:
            tl.store(out + i, tl.load(x + i) * 2)
        else:
            tl.store(out + i, tl.load(x + i, mask=i < n) * 2, mask=i < n)

    for n in (512, 500):
        x, out = torch.randn(n), torch.empty(n)
        tuned[lambda meta, n=n: (triton.cdiv(n, meta["BLOCK"]),)](x, out, n)
        assert torch.equal(out, x * 2)


@triton.jit
def store_number(number: tl.float32, whole, out, at):
    tl.store(out, number)
    tl.store(at, whole.to(tl.int64))


@pytest.mark.parametrize("number", [1e300, -1e300, 3, float("nan")])
@pytest.mark.parametrize("whole", [2**64 - 1, -5])
def test_numbers_too_large_for_their_type(number, whole):
    out, at = torch.empty(1), torch.empty(1, dtype=torch.int64)
    store_number[(1,)](number, whole, out, at)
    torch.testing.assert_close(out, torch.tensor([float(number)]), equal_nan=True)
    assert at.item() == (whole if whole < 0 else -1)
