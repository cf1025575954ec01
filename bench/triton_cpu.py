"""Triton kernels on the CPU beside torch: Inductor's C++, MKL and oneDNN, and SDPA.

`python -m bench triton-cpu` (extra `kernels`). Each case checks its result first.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from statistics import geometric_mean

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.result import Row, Section
from bench.rounds import Round, alternate, by_side, quiet_rounds, told, watched_round
from bench.triton_compile import compile_rows, interpreter_rows, numba_rows

HOW = """\
Both sides of a row take turns in one process; a round runs each until 20 ms have passed, and a
ratio is torch's time over ours in the same round. With one thread the clock is the thread's CPU
time, so that what others run on the host weighs less. With two it is the wall clock, and rounds
that others disturbed are taken again, three times as many at most. Every kernel's result is
compared with torch's before it is timed. Times include the launch from Python. Matrix
products take the fastest of three sizes of blocks."""
ROUNDS, QUICK_ROUNDS = 15, 3
PER_SIDE_S, LAUNCHES = 0.02, 500
WANTED_FUSED, WANTED_FUSED_MEAN, WANTED_MATMUL, WANTED_ATTENTION = 0.8, 1.0, 0.85, 0.9
WANTED_LAUNCH_S = 15e-6
BLOCKS = {
    torch.float32: [(256, 512, 128), (512, 256, 128), (256, 256, 128)],
    torch.bfloat16: [(512, 512, 256), (512, 256, 256), (256, 256, 256)],
}
"""Of matrix products: the fastest is taken, as `triton.autotune` does."""
TOLERANCES = {torch.float32: 2e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kernel with its arguments: `ours` and `theirs` return their result."""

    name: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    at_least: float


def measure(*, quick: bool = False) -> Section:
    """Every kernel on one and on two threads, then the cost of a launch."""
    import triton_cpu

    triton_cpu.activate()
    rounds = QUICK_ROUNDS if quick else ROUNDS
    before = torch.get_num_threads()
    rows: list[Row] = []
    notes: list[str] = []
    try:
        for threads in (1,) if quick else (1, 2):
            torch.set_num_threads(threads)
            torch.compiler.reset()
            kept: list[Round] = []
            taken = 0
            made: list[Row] = []
            for case in _cases(quick):
                row, its, count = _row(case, threads, rounds)
                made.append(row)
                kept += its
                taken += count
            if threads > 1:
                notes.append(f"With {_on(threads)}, {told(kept, taken)}.")
            fused = [row for row in made if row.at_least == WANTED_FUSED]
            rows += [*fused, _mean(fused, threads), *(row for row in made if row not in fused)]
        rows.append(_launch(rounds))
        rows += [*compile_rows(), *interpreter_rows(quick)]
        beside_numba, told_of = numba_rows(quick, rounds)
        rows += beside_numba
        notes += told_of
    finally:
        torch.set_num_threads(before)
    return Section(
        theme="triton-cpu",
        title="Triton kernels on the CPU beside torch",
        how=HOW,
        recipe={
            "rounds": rounds,
            "per_side_s": PER_SIDE_S,
            "triton": version("triton"),
            "llvmlite": version("llvmlite"),
        },
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _row(case: Case, threads: int, rounds: int) -> tuple[Row, list[Round], int]:
    """The row, the rounds it is made of, and how many were taken."""
    expected, got = case.theirs(), case.ours()
    tolerance = TOLERANCES.get(expected.dtype, 2e-4)
    torch.testing.assert_close(
        got.float(), expected.float(), rtol=tolerance, atol=tolerance * max(1, expected.abs().max())
    )
    clock = time.thread_time if threads == 1 else time.perf_counter
    sides = {"ours": lambda: _time(case.ours, clock), "theirs": lambda: _time(case.theirs, clock)}
    if threads == 1:
        kept = [watched_round(sides, number) for number in range(rounds)]
        taken = rounds
    else:
        kept, taken = quiet_rounds(sides, rounds)
    times = by_side([each.times for each in kept])
    row = Row(
        what=f"{case.name}, {_on(threads)}",
        ours=times["ours"],
        theirs=times["theirs"],
        at_least=case.at_least,
    )
    return row, kept, taken


def _mean(fused: list[Row], threads: int) -> Row:
    """The geometric means of the times of all rows, round by round."""
    return Row(
        what=f"geometric mean of these, {_on(threads)}",
        headline="Triton kernels on the CPU against Inductor" if threads == 1 else "",
        ours=tuple(map(geometric_mean, zip(*(row.ours for row in fused), strict=True))),
        theirs=tuple(map(geometric_mean, zip(*(row.theirs for row in fused), strict=True))),
        at_least=WANTED_FUSED_MEAN,
    )


def _on(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def _time(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    start, count = clock(), 0
    while clock() - start < PER_SIDE_S:
        call()
        count += 1
    return (clock() - start) / count


def _launch(rounds: int) -> Row:
    from bench import triton_kernels as kernels

    torch.set_num_threads(1)
    x = torch.randn(64)
    out = torch.empty(64)

    def launches() -> None:
        for _ in range(LAUNCHES):
            kernels.chain[(1,)](x, x, out, 64, BLOCK=64)

    return Row(
        what="launch of a cached kernel, one program",
        headline="launch of a cached Triton kernel on the CPU",
        ours=tuple(_time(launches, time.thread_time) / LAUNCHES for _ in range(rounds)),
        at_most=WANTED_LAUNCH_S,
    )


def _cases(quick: bool) -> list[Case]:
    rows, columns = (256, 1000) if quick else (2048, 2000)
    sizes = (512,) if quick else (512, 1024, 2048, 4096)
    cases = _fused(rows, columns)
    for size in sizes:
        cases += [_matmul(size, torch.float32), _matmul(size, torch.bfloat16)]
    return [*cases, _attention(512 if quick else 2048)]


def _case(
    name: str,
    result: Tensor,
    launch: Callable[[], object],
    plain: Callable[..., Tensor],
    *args: Tensor,
) -> Case:
    """A kernel that writes `result`, beside what Inductor makes of `plain`."""
    compiled = torch.compile(plain)

    def ours() -> Tensor:
        launch()
        return result

    return Case(name=name, ours=ours, theirs=lambda: compiled(*args), at_least=WANTED_FUSED)


def _fused(rows: int, columns: int) -> list[Case]:
    torch.manual_seed(0)
    x, y = torch.randn(rows, columns), torch.randn(rows, columns)
    return [*_of_rows(x), *_of_elements(x, y), _rotary(rows)]


def _of_rows(x: Tensor) -> list[Case]:
    """One program a row."""
    import triton

    from bench import triton_kernels as k

    rows, columns = x.shape
    grid, block = (rows,), triton.next_power_of_2(columns)
    weight, bias = torch.rand(columns), torch.randn(columns)
    target = torch.randint(0, columns, (rows,))
    out, losses = torch.empty_like(x), torch.empty(rows)

    def norm(t: Tensor) -> Tensor:
        return t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    def layer_norm(t: Tensor) -> Tensor:
        return F.layer_norm(t, (columns,), weight, bias)

    def loss(t: Tensor) -> Tensor:
        return F.cross_entropy(t, target, reduction="none")

    def softmax(t: Tensor) -> Tensor:
        return torch.softmax(t, -1)

    def ours_norm() -> None:
        k.layer_norm[grid](x, weight, bias, out, columns, 1e-5, block)

    return [
        _case("softmax", out, lambda: k.softmax[grid](x, out, columns, block), softmax, x),
        _case("layer norm", out, ours_norm, layer_norm, x),
        _case(
            "RMS norm", out, lambda: k.rms_norm[grid](x, weight, out, columns, 1e-5, block), norm, x
        ),
        _case(
            "cross entropy",
            losses,
            lambda: k.cross_entropy[grid](x, target, losses, columns, block),
            loss,
            x,
        ),
    ]


def _of_elements(x: Tensor, y: Tensor) -> list[Case]:
    """4,096 elements a program."""
    import triton

    from bench import triton_kernels as k

    out, count, block = torch.empty_like(x), x.numel(), 4096
    grid = (triton.cdiv(count, block),)

    def gated(g: Tensor, u: Tensor) -> Tensor:
        return F.silu(g) * u

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        z = torch.relu(a * 0.5 + b)
        return z * z - a * b + 1.0

    return [
        _case("SwiGLU", out, lambda: k.swiglu[grid](x, y, out, count, block), gated, x, y),
        _case(
            "element-wise chain", out, lambda: k.chain[grid](x, y, out, count, block), mixed, x, y
        ),
    ]


def _rotary(rows: int, heads: int = 8, half: int = 64) -> Case:
    from bench import triton_kernels as k

    x = torch.randn(rows, heads, 2 * half)
    out = torch.empty_like(x)
    cos, sin = torch.rand(rows, half), torch.rand(rows, half)

    def rotate(value: Tensor) -> Tensor:
        a, b = value.chunk(2, -1)
        c, s = cos[:, None], sin[:, None]
        return torch.cat((a * c - b * s, b * c + a * s), -1)

    return _case("rotary", out, lambda: k.rotary[(rows,)](x, cos, sin, out, half, heads), rotate, x)


def _matmul(size: int, dtype: torch.dtype) -> Case:
    from bench import triton_kernels as kernels

    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    c, out = torch.empty(size, size, dtype=dtype), torch.empty(size, size, dtype=dtype)

    def with_blocks(m: int, n: int, k: int) -> Callable[[], Tensor]:
        def ours() -> Tensor:
            kernels.matmul[size // m * (size // n),](a, b, c, size, size, size, m, n, k)
            return c

        return ours

    blocks = {shape: with_blocks(*shape) for shape in BLOCKS[dtype]}
    times = alternate({s: lambda f=f: _time(f, time.perf_counter) for s, f in blocks.items()}, 3)
    best = min(times, key=lambda shape: min(times[shape]))
    ours = blocks[best]
    name = f"matmul {size}³ {str(dtype).removeprefix('torch.')}, blocks {'×'.join(map(str, best))}"
    return Case(
        name=name, ours=ours, theirs=lambda: torch.mm(a, b, out=out), at_least=WANTED_MATMUL
    )


def _attention(length: int) -> Case:
    from bench import triton_kernels as kernels

    heads, dim = 4, 64
    q, k, v = (torch.randn(1, heads, length, dim) for _ in range(3))
    out = torch.empty_like(q)
    scale = 1 / math.sqrt(dim) / math.log(2)

    def ours() -> Tensor:
        kernels.attention[(length // 64, heads)](q, k, v, out, length, scale, dim, 64, 64)
        return out

    return Case(
        name=f"attention, {heads} heads of {dim}, {length} tokens, float32",
        ours=ours,
        theirs=lambda: F.scaled_dot_product_attention(q, k, v),
        at_least=WANTED_ATTENTION,
    )
