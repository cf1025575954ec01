"""How long Triton's CPU backend compiles, and what it gains on the interpreter and on Numba."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.result import Row
from bench.rounds import Round, by_side, quiet_rounds, told, watched_round

WANTED_COLD_S, WANTED_SLOWEST_S, WANTED_WARM_S = 0.150, 1.5, 0.005
WANTED_INTERPRETER, WANTED_NUMBA = 200.0, 1.0
INTERPRETED_ROUNDS = 3
_CACHE = "TRITON_CACHE_DIR"

Launch = Callable[[Any], None]
"""Launches the kernel, or a copy of it, that it is given."""


def launches(rows: int, columns: int) -> dict[str, tuple[Any, Launch]]:
    """Each kernel of `triton_kernels` with a launch of it on small tensors."""
    import triton

    from bench import triton_kernels as k

    x, y = torch.randn(rows, columns), torch.randn(rows, columns)
    out, losses = torch.empty_like(x), torch.empty(rows)
    weight, bias = torch.rand(columns), torch.randn(columns)
    target = torch.randint(0, columns, (rows,))
    a, b, c = (torch.randn(256, 256) for _ in range(3))
    q, angles = torch.randn(1, 64, 64), torch.randn(rows, 16)
    heads, scratch = torch.randn(rows, 2, 32), torch.empty(rows, 2, 32)
    block, count = triton.next_power_of_2(columns), x.numel()
    grid, flat = (rows,), (triton.cdiv(count, 4096),)
    return {
        "softmax": (k.softmax, lambda f: f[grid](x, out, columns, block)),
        "layer norm": (
            k.layer_norm,
            lambda f: f[grid](x, weight, bias, out, columns, 1e-5, block),
        ),
        "RMS norm": (k.rms_norm, lambda f: f[grid](x, weight, out, columns, 1e-5, block)),
        "cross entropy": (k.cross_entropy, lambda f: f[grid](x, target, losses, columns, block)),
        "rotary": (k.rotary, lambda f: f[grid](heads, angles, angles, scratch, 16, 2)),
        "SwiGLU": (k.swiglu, lambda f: f[flat](x, y, out, count, 4096)),
        "element-wise chain": (k.chain, lambda f: f[flat](x, y, out, count, 4096)),
        "matmul": (k.matmul, lambda f: f[(8,)](a, b, c, 256, 256, 256, 64, 128, 64)),
        "attention": (
            k.attention,
            lambda f: f[(1, 1)](q, q, q, torch.empty_like(q), 64, 0.1, 64, 64, 64),
        ),
    }  # fmt: skip


def compile_rows() -> list[Row]:
    """The first launch of each kernel with an empty cache, and with a full one."""
    import triton

    made = launches(4, 1000)
    cold: list[float] = []
    warm: list[float] = []
    before = os.environ.get(_CACHE)
    with TemporaryDirectory() as folder:
        os.environ[_CACHE] = folder
        try:
            kernel, launch = made["rotary"]
            launch(triton.JITFunction(kernel.fn))  # what is done once a process
            for name, (kernel, launch) in made.items():
                if name != "rotary":
                    cold.append(_first(triton.JITFunction(kernel.fn), launch))
                    warm.append(_first(triton.JITFunction(kernel.fn), launch))
        finally:
            os.environ.pop(_CACHE)
            if before is not None:
                os.environ[_CACHE] = before
    return [
        Row(
            what=f"first launch of a kernel, compiled anew, median of {len(cold)} kernels",
            headline="compile a Triton kernel for the CPU",
            ours=tuple(cold),
            at_most=WANTED_COLD_S,
        ),
        Row(
            what="first launch of the slowest of them, compiled anew",
            ours=(max(cold),),
            at_most=WANTED_SLOWEST_S,
        ),
        Row(
            what=f"first launch of a kernel, from the cache, median of {len(warm)} kernels",
            ours=tuple(warm),
            at_most=WANTED_WARM_S,
        ),
    ]


def _first(kernel: Any, launch: Launch) -> float:
    start = time.thread_time()
    launch(kernel)
    return time.thread_time() - start


def interpreter_rows(quick: bool) -> list[Row]:
    """Kernels beside Triton's interpreter, which runs their programs in NumPy one by one."""
    rows = 4 if quick else 256
    made = launches(rows, 1000)
    code = f"from bench import triton_compile; triton_compile.print_interpreted({rows})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs: dict[str, list[float]] = json.loads(done.stdout)
    return [
        Row(
            what=f"{name}, {rows} rows, beside Triton's interpreter",
            ours=tuple(_of_many(lambda name=name: made[name][1](made[name][0])) for _ in times),
            theirs=tuple(times),
            at_least=WANTED_INTERPRETER,
        )
        for name, times in theirs.items()
    ]


def print_interpreted(rows: int) -> None:
    """In a process in which Triton interprets: the processor time of a launch, some rounds."""
    made = launches(rows, 1000)
    times: dict[str, list[float]] = {}
    for name in ("softmax", "layer norm", "SwiGLU"):
        kernel, launch = made[name]
        times[name] = [_first(kernel, launch) for _ in range(INTERPRETED_ROUNDS + 1)][1:]
    print(json.dumps(times))


def _of_many(
    call: Callable[[], object],
    clock: Callable[[], float] = time.process_time,
    at_least_s: float = 0.02,
) -> float:
    call()
    start, count = clock(), 0
    while clock() - start < at_least_s:
        call()
        count += 1
    return (clock() - start) / count


def numba_rows(quick: bool, rounds: int) -> tuple[list[Row], list[str]]:
    """The same algorithms as Numba's parallel code; a note where it is missing."""
    if find_spec("numba") is None:
        return [], ["Not compared with Numba, which is not installed (`pip install numba`)."]
    import numba

    rows: list[Row] = []
    notes = [
        f"Numba {numba.__version__}, `parallel=True, fastmath=True`; processor time on one thread."
    ]
    most = numba.get_num_threads()
    for threads in (1,) if quick else range(1, min(2, most) + 1):
        numba.set_num_threads(threads)
        torch.set_num_threads(threads)
        made, told_of = _beside_numba(64 if quick else 2048, threads, rounds)
        rows += made
        notes += told_of
    numba.set_num_threads(most)
    return rows, notes


def _beside_numba(height: int, threads: int, rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of so many threads, and how quiet the host was where the clock is the wall's."""
    from bench import numba_kernels as theirs

    made = launches(height, 2000)
    clock = time.process_time if threads == 1 else time.perf_counter
    rows: list[Row] = []
    kept: list[Round] = []
    taken = 0
    for name, call in theirs.calls(height, 2000).items():
        kernel, launch = made[name]
        sides = {
            "ours": lambda k=kernel, f=launch: _of_many(lambda: f(k), clock),
            "theirs": lambda f=call: _of_many(f, clock),
        }
        if threads == 1:
            its, count = [watched_round(sides, number) for number in range(rounds)], rounds
        else:
            its, count = quiet_rounds(sides, rounds)
        kept, taken = kept + its, taken + count
        times = by_side([each.times for each in its])
        rows.append(
            Row(
                what=f"{name}, by Numba, {threads} thread{'s' * (threads > 1)}",
                ours=times["ours"],
                theirs=times["theirs"],
                at_least=WANTED_NUMBA,
            )
        )
    note = f"By Numba with {threads} threads, {told(kept, taken)}."
    return rows, [note] if threads > 1 else []
