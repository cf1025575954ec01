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
from supernode.machine import load_machine, what_if
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Rehearsal, simulate

HOW = """\
Each number is taken in a fresh process, several times; the table shows the median. Capture is the
whole process: import of torch, building the model on meta, recording the step. The captured step
is saved, and each plan reads it in a process that never imports torch; partition and simulate are
timed together after the reading. One Program serves all machines, so that only their size differs;
the one of 4,096 chips is a file a user could have written, `bench/cluster4096.toml`. The largest
models are measured once each, in processor time."""
CLUSTER = Path(__file__).with_name("cluster4096.toml")
PLANS = (
    ("hgx-h100", 8, "dp=2,fsdp=2,tp=2"),
    ("cloudmatrix384", 384, "dp=6,fsdp=8,tp=8"),
    (str(CLUSTER), 4096, "dp=32,fsdp=16,tp=8"),
)
BATCH = 12_288  # the least common multiple of the batch's parts (384 and 4,096)
LARGE = (
    ("deepseek-v3", 12_288, "cloudmatrix384", 384, "dp=12,ep=32"),
    ("deepseek-v3", 12_288, "256xhgx-h100", 2048, "pp=16,dp=2,ep=64,micro=32,recompute=full"),
    ("llama3-405b", 3_840_000, "48xhgx-h100", 384, "pp=16,dp=3,tp=8,micro=16"),
    ("llama3-405b", 3_840_000, "2048xhgx-h100", 16_384, "pp=16,dp=128,tp=8,micro=16"),
    ("llama3-405b", 3_840_000, "12500xhgx-h100", 100_000, "pp=20,dp=625,tp=8,micro=16"),
)
"""The largest models, and the batch that their layouts divide: machine, chips, layout."""
SIMULATE_AT_MOST_S = {2048: 5.0, 16_384: 3.0, 100_000: 3.0}
WHAT_IF_AT_MOST_S = {"cloudmatrix384": 0.05}
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
        rows += [] if quick else _large_rows(Path(folder))
    return Section(
        theme="planning",
        title="Planning: capture, partition and simulate",
        how=HOW,
        recipe={
            "model": name,
            "batch": BATCH,
            "plans": [(Path(machine).name, chips, layout) for machine, chips, layout in PLANS],
            "rounds": rounds,
        },
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


def _large_rows(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for name, batch, machine, chips, layout in LARGE:
        program = folder / f"{name}.json"
        if not program.exists():
            _fresh("capture", name, str(batch), str(program))
        asked = (str(program), machine, layout, str(chips))
        planned = _fresh("plan", *asked)
        uses = {work: _fresh(work, *asked) for work in ("simulate", "what_if")}
        limits = {
            "simulate": SIMULATE_AT_MOST_S.get(chips),
            "what_if": WHAT_IF_AT_MOST_S.get(machine),
        }
        what = f"{name} for {chips:,} chips, {layout}"
        rows.append(Row(what=f"plan and simulate {what}, processor time", ours=(planned["cpu_s"],)))
        for work, use in uses.items():
            said = f"{work.replace('_', '-')} {what}, once planned, processor time"
            rows.append(Row(what=said, ours=(use["cpu_s"],), at_most=limits[work]))
        peak = float(uses["simulate"]["peak_bytes"])
        rows.append(Row(what=f"{what}, peak memory", ours=(peak,), unit="B", at_most=2e9))
    return rows


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


def _simulate(path: str, machine: str, layout: str, chips: str) -> Use:
    """A step of a plan that is there."""
    plan, target = _planned(path, layout, chips), load_machine(machine)
    return _timed(lambda: simulate(plan, target))


def _what_if(path: str, machine: str, layout: str, chips: str) -> Use:
    """The same step with another number of the machine, once it was simulated."""
    rehearsal, target = Rehearsal(_planned(path, layout, chips)), load_machine(machine)
    rehearsal.on(target)
    return _timed(lambda: rehearsal.on(what_if(target, "chip.memory.bandwidth=2x")))


def _planned(path: str, layout: str, chips: str) -> Plan:
    program = from_json(Path(path).read_text(encoding="utf-8"))
    return partition(program, layout, int(chips))


def _timed(work: Callable[[], object]) -> Use:
    start_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    return Use(wall_s=wall_s, cpu_s=cpu_s, peak_bytes=peak_memory_bytes())


def _plan(path: str, machine: str, layout: str, chips: str) -> Use:
    program = from_json(Path(path).read_text(encoding="utf-8"))
    target = load_machine(machine)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    simulate(partition(program, layout, int(chips)), target)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    assert "torch" not in sys.modules, "planning needs no torch"
    return Use(wall_s=wall_s, cpu_s=cpu_s, peak_bytes=peak_memory_bytes())


if __name__ == "__main__":
    _WORK: dict[str, Callable[..., Use]] = {
        "capture": _capture,
        "plan": _plan,
        "simulate": _simulate,
        "what_if": _what_if,
    }
    print(json.dumps(_WORK[sys.argv[1]](*sys.argv[2:])))
