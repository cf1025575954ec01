"""The true DeepSeek-V3 on a CloudMatrix 384: planned in seconds, with the textbook's bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from supernode.capture import capture
from supernode.ir import to_json
from supernode.models import recipe

PLANNER = r"""
import json, re, sys, time
from supernode.ir import from_json
from supernode.partition import partition
from supernode.report.traffic import totals

program = from_json(open(sys.argv[1], encoding="utf-8").read())
start = time.process_time()
plan = partition(program, sys.argv[2], 384)
took = time.process_time() - start
sent = sum(each.sent_bytes for each in totals(plan) if each.collective == "all_to_all")
# Not getrusage: its ru_maxrss starts at what the parent held, and pytest holds gigabytes by now.
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
print(json.dumps({"took_s": took, "peak_bytes": peak, "sent_bytes": sent}))
"""
LAYERS, TOP, WIDTH, BYTES = 58 + 1, 8, 7168, 2
"""Layers with experts, the one of the module ahead included; experts of a token; bfloat16."""
SEQUENCE = 4096


@pytest.mark.slow
def test_deepseek_v3_for_384_chips(tmp_path: Path) -> None:
    job = recipe("deepseek-v3").build(batch=384, sequence=SEQUENCE, device="meta")
    parameters = sum(param.numel() for param in job.model.parameters())
    assert 671e9 < parameters < 690e9
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    file = tmp_path / "program.json"
    file.write_text(to_json(program), encoding="utf-8")
    command = [sys.executable, "-c", PLANNER, str(file), "dp=12,ep=32"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["took_s"] <= 10
    assert found["peak_bytes"] <= 2e9
    textbook = 4 * LAYERS * SEQUENCE * TOP * WIDTH * BYTES * 31 / 32
    assert textbook <= found["sent_bytes"] <= 1.05 * textbook
