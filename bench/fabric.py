"""The shared-memory fabric beside gloo: the same collectives, ranks and threads, in one run."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
import torch.distributed as dist

from bench.result import Row, Section
from bench.rounds import alternate
from supernode.run.fabric import ArenaSet, Fabric, SharedMemoryFabric
from supernode.units import KIB, MIB

HOW = """\
Two processes are both: ranks of the shared-memory fabric and of a gloo group. A round is a row of
calls of one collective by one of them, then by the other, with a barrier before each; the table
shows the median of the ratios, gloo's time over ours in the same round. A size is that of the whole
float32 tensor. `arena`: the tensor lies in shared memory; `ordinary`: it does not, and the result
goes to a tensor that is there; `ordinary, new`: the result is a new tensor each time, while gloo
always writes to one that is there."""
CALLS = {4 * KIB: 200, MIB: 40, 64 * MIB: 4}  # size of the whole tensor -> calls in a round
AT_LEAST = {4 * KIB: 10.0, 64 * MIB: 3.0}  # wanted of an all-reduce that makes no new tensor
SIZE_NAME = {4 * KIB: "4 KiB", MIB: "1 MiB", 64 * MIB: "64 MiB"}

Case = tuple[str, str, Callable[[], object], Callable[[], object]]


class Result(TypedDict):
    """One collective at one size: the seconds of a call, round by round."""

    collective: str
    tensors: str
    size_bytes: int
    ours_s: list[float]
    gloo_s: list[float]


def measure(*, quick: bool = False, ranks: int = 2) -> Section:
    """Every collective at every size."""
    rounds, sizes = (3, [4 * KIB]) if quick else (15, list(CALLS))
    return Section(
        theme="fabric",
        title="The shared-memory fabric beside gloo",
        how=HOW,
        recipe={
            "ranks": ranks,
            "threads a rank": 1,
            "rounds": rounds,
            "calls in a round": {SIZE_NAME[size]: CALLS[size] for size in sizes},
        },
        rows=tuple(_row(result) for result in _results(ranks, rounds, sizes)),
    )


def _row(result: Result) -> Row:
    size, collective, tensors = result["size_bytes"], result["collective"], result["tensors"]
    reduces = collective == "all_reduce"
    wanted = AT_LEAST.get(size) if reduces and tensors != "ordinary, new" else None
    return Row(
        what=f"{collective} {SIZE_NAME[size]}, {tensors}",
        ours=tuple(result["ours_s"]),
        theirs=tuple(result["gloo_s"]),
        at_least=wanted,
        headline=f"all-reduce of {SIZE_NAME[size]} against gloo"
        if reduces and tensors == "ordinary"
        else "",
    )


def _results(ranks: int, rounds: int, sizes: list[int]) -> list[Result]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with ArenaSet.create(ranks) as arenas, tempfile.TemporaryDirectory() as folder:
        task = json.dumps({"rounds": rounds, "sizes": sizes})
        command = [sys.executable, "-m", "bench.fabric", str(Path(folder) / "store"), task]
        workers = [
            subprocess.Popen(
                [*command, str(rank), *map(str, arenas.fds)],
                pass_fds=arenas.fds,
                stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
            for rank in range(ranks)
        ]
        try:
            text = workers[0].communicate(timeout=600)[0]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return json.loads(text)


def _work(store: str, rank: int, fds: list[int], *, rounds: int, sizes: list[int]) -> list[Result]:
    torch.set_num_threads(1)
    fabric = SharedMemoryFabric.attach(fds, rank)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=fabric.world
    )
    found = [_result(fabric, case, size, rounds) for size in sizes for case in _cases(fabric, size)]
    dist.destroy_process_group()
    return found


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


def _result(fabric: Fabric, case: Case, size_bytes: int, rounds: int) -> Result:
    collective, tensors, ours, gloo = case

    def round_of(call: Callable[[], object]) -> Callable[[], float]:
        return lambda: _seconds_a_call(fabric, call, CALLS[size_bytes])

    times = alternate({"ours": round_of(ours), "gloo": round_of(gloo)}, rounds)
    return Result(
        collective=collective,
        tensors=tensors,
        size_bytes=size_bytes,
        ours_s=list(times["ours"]),
        gloo_s=list(times["gloo"]),
    )


def _seconds_a_call(fabric: Fabric, call: Callable[[], object], calls: int) -> float:
    call()
    fabric.barrier(tuple(range(fabric.world)))
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    _, _store, _task, _rank, *_fds = sys.argv
    print(json.dumps(_work(_store, int(_rank), list(map(int, _fds)), **json.loads(_task))))
