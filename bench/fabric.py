"""The shared-memory fabric beside gloo: the same collectives, ranks and threads, in one run.

`python bench/fabric.py` prints one line for each collective, size and kind of tensor: the time of
a call in a row of calls, the median of several rounds in which the two take turns, so that other
load on the host falls on both.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from supernode.run.fabric import ArenaSet, Fabric, SharedMemoryFabric
from supernode.units import KIB, MIB, format_bytes, format_seconds

ROUNDS = 7
CALLS = {4 * KIB: 200, MIB: 40, 64 * MIB: 4}  # size of the whole tensor -> calls in a round

Case = tuple[str, str, Callable[[], object], Callable[[], object]]


def measure(ranks: int = 2) -> list[dict[str, Any]]:
    """One dict for each line of the table; times are medians over `ROUNDS` rounds, in seconds."""
    with ArenaSet.create(ranks) as arenas, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(Path(folder) / "store")]
        workers = [
            subprocess.Popen(
                [*command, str(rank), *map(str, arenas.fds)],
                pass_fds=arenas.fds,
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            )
            for rank in range(ranks)
        ]
        try:
            text = workers[0].communicate(timeout=300)[0]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return json.loads(text)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [f"{'collective':<15}{'size':>8}  {'tensors':<15}{'ours':>10}{'gloo':>10}{'ratio':>8}"]
    for row in rows:
        ours, gloo = format_seconds(row["ours_s"]), format_seconds(row["gloo_s"])
        name, size = row["collective"], format_bytes(row["size_bytes"])
        lines.append(
            f"{name:<15}{size:>8}  {row['tensors']:<15}{ours:>10}{gloo:>10}{row['ratio']:>7.1f}x"
        )
    return "\n".join(lines)


def _work(store: str, rank: int, fds: list[int]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    fabric = SharedMemoryFabric.attach(fds, rank)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=fabric.world
    )
    rows = [_row(fabric, case, size) for size in CALLS for case in _cases(fabric, size)]
    dist.destroy_process_group()
    return rows


def _cases(fabric: Fabric, size_bytes: int) -> list[Case]:
    """(collective, kind of tensor, ours, gloo's) on float32 tensors of `size_bytes` in all."""
    group, count = tuple(range(fabric.world)), size_bytes // 4
    arena = fabric.empty((count,), torch.float32).zero_()
    whole, other = torch.zeros(count), torch.zeros(count)
    part = torch.zeros(count // fabric.world)

    def gloo_reduce() -> None:
        dist.all_reduce(whole)

    return [
        ("all_reduce", "arena", lambda: fabric.all_reduce(arena, group), gloo_reduce),
        (
            "all_reduce",
            "ordinary",
            lambda: fabric.all_reduce(whole, group, out=whole),
            gloo_reduce,
        ),
        ("all_reduce", "ordinary, new", lambda: fabric.all_reduce(whole, group), gloo_reduce),
        (
            "all_gather",
            "ordinary, new",
            lambda: fabric.all_gather(part, 0, group),
            lambda: dist.all_gather_single(whole, part),
        ),
        (
            "reduce_scatter",
            "ordinary, new",
            lambda: fabric.reduce_scatter(whole, 0, group),
            lambda: dist.reduce_scatter_single(part, whole),
        ),
        (
            "all_to_all",
            "ordinary, new",
            lambda: fabric.all_to_all(whole.view(fabric.world, -1), 0, 0, group),
            lambda: dist.all_to_all_single(other, whole),
        ),
    ]


def _row(fabric: Fabric, case: Case, size_bytes: int) -> dict[str, Any]:
    collective, tensors, ours, gloo = case
    times: dict[str, list[float]] = {"ours": [], "gloo": []}
    for _ in range(ROUNDS):
        for name, call in (("ours", ours), ("gloo", gloo)):
            call()
            fabric.barrier(tuple(range(fabric.world)))
            start = time.perf_counter()
            for _ in range(CALLS[size_bytes]):
                call()
            times[name].append((time.perf_counter() - start) / CALLS[size_bytes])
    ours_s, gloo_s = statistics.median(times["ours"]), statistics.median(times["gloo"])
    return {
        "collective": collective,
        "size_bytes": size_bytes,
        "tensors": tensors,
        "ours_s": ours_s,
        "gloo_s": gloo_s,
        "ratio": gloo_s / ours_s,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_work(sys.argv[1], int(sys.argv[2]), [int(fd) for fd in sys.argv[3:]])))
    else:
        print(f"2 ranks, torch {torch.__version__}, {platform.machine()}, one thread a rank")
        print(table(measure()))
