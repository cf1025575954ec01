"""The largest models on the largest machines: planned and simulated in seconds."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supernode.capture import capture
from supernode.ir import to_json
from supernode.models import recipe

PROGRAM = Path(__file__).with_name("large.py")
LAYERS, TOP, WIDTH, BYTES = 58 + 1, 8, 7168, 2
"""Layers with experts, the one of the module ahead included; experts of a token; bfloat16."""
SEQUENCE = 4096
SEQUENCES = 32
"""Of a chip in a step, which divide by the microbatches of the layouts here."""
SPARE = 2
"""Hosts differ and are busy: so many times the seconds of `bench/planning.py` are let pass."""


def planned(program: Path, layout: str, chips: int, machine: str) -> dict[str, float]:
    """In a process of its own, whose memory is counted."""
    command = [sys.executable, str(PROGRAM), str(program), layout, str(chips), machine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def saved(folder: Path, name: str, batch: int, sequence: int) -> tuple[Path, int]:
    """The file of a captured train step, and the number of its parameters."""
    job = recipe(name).build(batch=batch, sequence=sequence, device="meta")
    begin = time.process_time()
    program = capture(job.step, job.model, job.optimizer, job.inputs, name=name).program
    assert time.process_time() - begin <= 40 * SPARE
    file = folder / f"{name}.json"
    file.write_text(to_json(program), encoding="utf-8")
    return file, sum(param.numel() for param in job.model.parameters())


@pytest.mark.zoo
def test_deepseek_v3(tmp_path: Path) -> None:
    """On a CloudMatrix 384 with the textbook's bytes, and on 2,048 chips in 16 stages."""
    program, parameters = saved(tmp_path, "deepseek-v3", 384 * SEQUENCES, SEQUENCE)
    assert 671e9 < parameters < 690e9

    for layout, ep in (("dp=12,ep=32", 32), ("dp=6,ep=64,recompute=selective", 64)):
        found = planned(program, layout, 384, "cloudmatrix384")
        assert found["plan_s"] <= 10 * SPARE
        assert found["simulate_s"] <= 1 * SPARE
        assert found["what_if_s"] <= 0.05 * SPARE
        assert found["peak_bytes"] <= 1e9
        textbook = 4 * LAYERS * SEQUENCES * SEQUENCE * TOP * WIDTH * BYTES * (ep - 1) / ep
        assert textbook <= found["exchanged_bytes"] <= 1.05 * textbook

    staged = "pp=16,dp=2,ep=64,micro=32,recompute=full"
    found = planned(program, staged, 2048, "256xhgx-h100")
    assert found["plan_s"] <= 15 * SPARE
    assert found["simulate_s"] <= 5 * SPARE
    assert found["peak_bytes"] <= 2e9


@pytest.mark.zoo
def test_llama_3_405b_on_ever_more_chips(tmp_path: Path) -> None:
    """As it was trained, 16 stages of 8 chips; what more of them cost is hardly anything."""
    parts, copies = 16, (3, 128, 625)
    program, _ = saved(tmp_path, "llama3-405b", parts * 3 * 128 * 625, 8192)
    times: list[float] = []
    for dp, stages in zip(copies, (16, 16, 20), strict=True):
        chips = 8 * stages * dp
        found = planned(program, f"pp={stages},dp={dp},tp=8,micro={parts}", chips, on(chips))
        assert found["plan_s"] <= 10 * SPARE
        assert found["simulate_s"] <= 3 * SPARE
        assert found["peak_bytes"] <= 1e9
        times.append(found["simulate_s"])
    assert chips == 100_000
    assert max(times) <= 2 * min(times)


def on(chips: int) -> str:
    return f"{chips // 8}xhgx-h100"
