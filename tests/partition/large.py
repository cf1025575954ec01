"""Plans and simulates a saved Program in this process, and says what that took.

Usage: python large.py PROGRAM LAYOUT CHIPS MACHINE. Times are those of the processor. The memory is
not getrusage's, whose ru_maxrss starts at what the parent held, and pytest holds gigabytes.
"""

import json
import re
import sys
import time
from pathlib import Path

from supernode.ir import from_json
from supernode.machine import load_machine, what_if
from supernode.partition import partition
from supernode.report.traffic import totals
from supernode.simulate import Rehearsal

REPEATS = 8


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def main(path: str, layout: str, chips: str, name: str) -> dict[str, float]:
    program, machine = from_json(Path(path).read_text(encoding="utf-8")), load_machine(name)
    begin = time.process_time()
    plan = partition(program, layout, int(chips))
    planned = time.process_time()
    rehearsal = Rehearsal(plan)
    step_s = rehearsal.on(machine).step_s
    simulated = time.process_time()
    answers: list[float] = []
    for factor in range(2, 2 + REPEATS):
        start = time.process_time()
        rehearsal.on(what_if(machine, f"chip.memory.bandwidth={factor}x"))
        answers.append(time.process_time() - start)
    return {
        "plan_s": planned - begin,
        "simulate_s": simulated - planned,
        "what_if_s": min(answers),
        "step_s": step_s,
        "peak_bytes": peak_bytes(),
        "exchanged_bytes": sum(
            each.sent_bytes for each in totals(plan) if each.collective == "all_to_all"
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
