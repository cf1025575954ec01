"""Planning a large machine on this host: capture, partition and simulate, in time and memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from bench.host import peak_memory_bytes
from bench.result import Row, Section
from supernode.ir import from_json, to_json
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.simulate import simulate

HOW = """\
Each number is taken in a fresh process, several times; the table shows the median. Capture is the
whole process: import of torch, building the model on meta, recording the step. The captured step
is saved, and each plan reads it in a process that never imports torch; partition and simulate are
timed together after the reading. One Program serves all machines, so that only their size differs;
the one of 4,096 chips is a file a user could have written, `bench/cluster4096.toml`."""
CLUSTER = Path(__file__).with_name("cluster4096.toml")
PLANS = (
    ("hgx-h100", 8, "dp=2,fsdp=2,tp=2"),
    ("cloudmatrix384", 384, "dp=6,fsdp=8,tp=8"),
    (str(CLUSTER), 4096, "dp=32,fsdp=16,tp=8"),
)
BATCH = 12_288  # the least common multiple of the batch's parts (384 and 4,096)
LONGEST_S = 900.0


class Use(TypedDict):
    """What some work took, in seconds of the clock and of the processor, and bytes of memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def measure(*, quick: bool = False) -> Section:
    """Capture once a round, then each plan of `PLANS` once a round."""
    name, rounds = "llama3-8b", 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "program.json")
        rows = _capture_rows(name, program, rounds)
        for machine, chips, layout in PLANS:
            uses = [_fresh("plan", program, machine, layout, str(chips)) for _ in range(rounds)]
            rows += _plan_rows(name, chips, layout, uses)
    return Section(
        theme="planning",
        title="Planning: capture, partition and simulate",
        how=HOW,
        recipe={"model": name, "batch": BATCH, "plans": PLANS, "rounds": rounds},
        rows=tuple(rows),
    )


def _capture_rows(name: str, program: str, rounds: int) -> list[Row]:
    uses = [_fresh("capture", name, str(BATCH), program) for _ in range(rounds)]
    what = f"capture of a train step of {name} at batch {BATCH:,}"
    return [
        Row(
            what=f"{what}, wall time",
            ours=tuple(use["wall_s"] for use in uses),
            at_most=20.0,
            headline=f"capture a train step of {name}, from a cold start",
        ),
        Row(what=f"{what}, processor time", ours=tuple(use["cpu_s"] for use in uses)),
        Row(
            what=f"{what}, peak memory of the process",
            ours=tuple(float(use["peak_bytes"]) for use in uses),
            unit="B",
            at_most=1.5e9,
            headline=f"memory to capture {name}",
        ),
    ]


def _plan_rows(name: str, chips: int, layout: str, uses: list[Use]) -> list[Row]:
    what = f"partition + simulate {name} for {chips:,} chips, {layout}"
    return [
        Row(
            what=f"{what}, wall time",
            ours=tuple(use["wall_s"] for use in uses),
            at_most=2.0,
            headline=f"plan and simulate {name} on {chips:,} chips, once captured",
        ),
        Row(what=f"{what}, processor time", ours=tuple(use["cpu_s"] for use in uses)),
        Row(
            what=f"{what}, peak memory of the process",
            ours=tuple(float(use["peak_bytes"]) for use in uses),
            unit="B",
        ),
    ]


def _fresh(*arguments: str) -> Use:
    """Runs this file's `main` in a process of its own."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bench.planning", *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONGEST_S,
        check=True,
    )
    whole_s = time.perf_counter() - start
    use: Use = json.loads(done.stdout)
    return {**use, "wall_s": whole_s} if arguments[0] == "capture" else use


def _capture(name: str, batch: str, path: str) -> Use:
    from supernode.capture import capture
    from supernode.models import recipe

    job = recipe(name).build(batch=int(batch), device="meta")
    captured = capture(job.step, job.model, job.optimizer, job.inputs, name=name)
    use = Use(wall_s=0.0, cpu_s=time.process_time(), peak_bytes=peak_memory_bytes())
    Path(path).write_text(to_json(captured.program), encoding="utf-8")
    return use


def _plan(path: str, machine: str, layout: str, chips: str) -> Use:
    program = from_json(Path(path).read_text(encoding="utf-8"))
    target = load_machine(machine)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    simulate(partition(program, layout, int(chips)), target)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    assert "torch" not in sys.modules, "planning needs no torch"
    return Use(wall_s=wall_s, cpu_s=cpu_s, peak_bytes=peak_memory_bytes())


if __name__ == "__main__":
    _WORK: dict[str, Callable[..., Use]] = {"capture": _capture, "plan": _plan}
    print(json.dumps(_WORK[sys.argv[1]](*sys.argv[2:])))
