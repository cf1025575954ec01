"""Code for other CPUs than this one: older ones of its kind run it here, Arm's is only compiled."""

import platform

import pytest
import torch

triton = pytest.importorskip("triton", reason="needs triton: pip install '.[kernels]'")
llvm = pytest.importorskip("llvmlite.binding", reason="needs llvmlite: pip install '.[kernels]'")
tl = pytest.importorskip("triton.language")

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = {*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
OLDER = {"nehalem": (128, set()), "haswell": (256, AVX2), "skylake-avx512": (512, AVX512)}
"""Width of the vector registers and features, by LLVM's name."""
ARM = {"cortex-a72": 128, "neoverse-v1": 128}


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0) * n, tl.arange(0, BLOCK)
    value = tl.load(x + row + i, mask=i < n, other=-float("inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(out + row + i, power / tl.sum(power, 0), mask=i < n)


@triton.jit
def product(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    total = tl.zeros((M, N), tl.float32)
    for step in range(STEPS):
        left = tl.load(a + step * K + m[:, None] * (K * STEPS) + k[None, :])
        right = tl.load(b + (step * K + k)[:, None] * N + n[None, :])
        total = tl.dot(left, right, total)
    tl.store(c + m[:, None] * N + n[None, :], total.to(c.dtype.element_ty))


@triton.jit
def convert(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


def pretend(monkeypatch, triple: str, cpu: str, bits: int, features: set[str]) -> None:
    """From now on kernels are compiled for that CPU."""
    from triton_cpu.runtime import host

    host.initialize()
    target = llvm.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=cpu, jit=True, reloc="pic", codemodel="default")
    known = frozenset(features)
    for name, value in {
        "cpu_name": cpu, "vector_bits": bits, "features": known, "target_machine": machine,
    }.items():  # fmt: skip
        monkeypatch.setattr(host, name, lambda value=value: value)


@pytest.fixture(params=OLDER)
def older(request, monkeypatch) -> None:
    from triton_cpu.runtime import host

    bits, features = OLDER[request.param]
    if platform.machine() != "x86_64" or not features <= host.features():
        pytest.skip("this CPU can't run that one's code")
    pretend(monkeypatch, llvm.get_default_triple(), request.param, bits, features)


@pytest.mark.usefixtures("older")
def test_older_cpus_compute_the_same():
    x = torch.randn(13, 300)
    out = torch.empty_like(x)
    kernel = triton.JITFunction(softmax.fn)[(13,)](x, out, 300, 512)
    torch.testing.assert_close(out, torch.softmax(x, 1))
    assert not {"vcvtneps2bf16", "tdpbf16ps"} & set(kernel.asm["asm"].split())
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        a, b, c = (
            torch.randn(32, 128).to(dtype),
            torch.randn(128, 64).to(dtype),
            torch.empty(32, 64),
        )
        c = c.to(dtype)
        triton.JITFunction(product.fn)[(1,)](a, b, c, 32, 64, 64, 2)
        expected = (a.double() @ b.double()).to(dtype)
        torch.testing.assert_close(c, expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.usefixtures("older")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_older_cpus_round_the_same(dtype):
    x = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1e-40, torch.inf, torch.nan])])
    x = torch.cat([x, torch.randn(1024 - len(x)) * 1e-6]).clamp(-400, 400)
    out = torch.empty(1024, dtype=dtype)
    triton.JITFunction(convert.fn)[(1,)](x, out, 1024)
    torch.testing.assert_close(out.float(), x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("older")
def test_older_cpus_know_every_half():
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    out, back = torch.empty(2**16), torch.empty_like(x)
    triton.JITFunction(convert.fn)[(1,)](x, out, 2**16)
    torch.testing.assert_close(out, x.float(), rtol=0, atol=0, equal_nan=True)
    # Between any two, a quarter of the way, half of it, and three quarters
    sorted_x = x[x.isfinite()].float().unique()
    for part in (0.0, 0.25, 0.5, 0.75):
        between = sorted_x[:-1] + part * sorted_x.diff()
        y = torch.cat([between, 65520 * torch.ones(2**16 - len(between))])
        triton.JITFunction(convert.fn)[(1,)](y, back, 2**16)
        torch.testing.assert_close(back, y.half(), rtol=0, atol=0)


@pytest.mark.parametrize("cpu", ARM)
def test_arm_code_uses_its_vectors(cpu, monkeypatch):
    from triton_cpu.runtime import codegen

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(codegen, "to_object", lambda assembly: b"")  # llvmlite assembles natively
    pretend(monkeypatch, "aarch64-unknown-linux-gnu", cpu, ARM[cpu], {"neon"})
    x = torch.randn(13, 300)
    compiled = triton.JITFunction(softmax.fn).warmup(x, x, 300, 512, grid=(13,))
    assert "fmla\tv" in compiled.asm["asm"]
    for dtype in (torch.float32, torch.bfloat16):
        a, b, c = (
            torch.randn(32, 128).to(dtype),
            torch.randn(128, 64).to(dtype),
            torch.empty(32, 64),
        )
        compiled = triton.JITFunction(product.fn).warmup(a, b, c, 32, 64, 64, 2, grid=(1,))
        assert "fmla\tv" in compiled.asm["asm"]
