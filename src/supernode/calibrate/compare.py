"""Runs steps on this host and says how far off a machine file predicts them."""

import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path

import torch

from supernode.api import Node, Step, connect
from supernode.calibrate.measure import Say
from supernode.calibrate.subjects import Subject, Work
from supernode.machine import Machine
from supernode.simulate import Simulation, simulate
from supernode.trace import MEMORY, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One step on some chips: what was predicted and what happened.

    `measured_s` is the fastest of `steps` steps by the clock. `work_s` is the processor time of a
    step, of the node and the busiest chip, over the chip's threads: what a step would take if
    nobody else used the host, short of what chips wait for. `ops` are the predicted and measured
    seconds of all ops of a name, on the mean of the chips; one that is priced at nothing counts.
    """

    subject: str
    chips: int
    layout: str
    steps: int
    predicted_s: float
    low_s: float
    high_s: float
    measured_s: float
    work_s: float
    predicted_bytes: int
    measured_bytes: int
    ops: Mapping[str, tuple[float, float]] = field(hash=False)

    @property
    def time_error(self) -> float:
        """Predicted over measured time, minus 1."""
        return self.predicted_s / self.measured_s - 1

    @property
    def work_error(self) -> float:
        """Predicted time over measured work, minus 1."""
        return self.predicted_s / self.work_s - 1

    @property
    def memory_error(self) -> float:
        """Predicted over measured peak of memory, minus 1."""
        return self.predicted_bytes / self.measured_bytes - 1

    @property
    def op_error(self) -> float:
        """How far off the times of the kinds of ops are in sum, over their sum."""
        off = fsum(abs(predicted - measured) for predicted, measured in self.ops.values())
        return off / fsum(measured for _, measured in self.ops.values())

    @property
    def worst_op(self) -> str:
        """The kind of op whose time is furthest off, in seconds."""
        return max(self.ops, key=lambda name: abs(self.ops[name][0] - self.ops[name][1]))

    @property
    def covered(self) -> bool:
        """Whether the measured time lies in the range that the prediction states."""
        return self.low_s <= self.measured_s <= self.high_s


def compared(
    machine: Machine, subjects: Iterable[Subject], *, steps: int, say: Say
) -> list[Comparison]:
    """Each step on one chip and on all chips of `machine`, which must be this host.

    Raises:
        ChipFailed: a chip failed.
    """
    found: list[Comparison] = []
    threads = int(machine.chip.cores.value) if machine.chip.cores else 1
    subjects = tuple(subjects)
    for chips in sorted({1, machine.chips}):
        with _threads(threads), connect(f"cpu:{chips}") as node:
            for subject in subjects:
                say(f"running {subject.name} on {chips} of {machine.chips} chips")
                found.append(_compared(node, subject, machine, steps))
    return found


@contextmanager
def _threads(count: int) -> Generator[None]:
    """Chips started meanwhile have at most so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compared(node: Node, subject: Subject, machine: Machine, steps: int) -> Comparison:
    work = subject.make()
    step = node.compile(work.step, work.model, work.optimizer, name=subject.name)
    _, held = step.traced_memory(*work.inputs)
    traces = [step.traced(*work.inputs)[1] for _ in range(steps)]
    busy_s = _busy_s(node)
    times = [_seconds(step, work) for _ in range(steps)]
    busy_s = [after - before for before, after in zip(busy_s, _busy_s(node), strict=True)]
    threads = machine.chip.cores.value if machine.chip.cores else 1.0
    answer = simulate(step.plan, machine)
    low_s, high_s = answer.range_s
    return Comparison(
        subject=subject.name,
        chips=node.chips,
        layout=step.plan.layout,
        steps=steps,
        predicted_s=answer.step_s,
        low_s=low_s,
        high_s=high_s,
        measured_s=min(times),
        work_s=(busy_s[0] + max(busy_s[1:]) / threads) / steps,
        predicted_bytes=step.plan.memory().peak_bytes,
        measured_bytes=int(max(held.peak(MEMORY, chip) for chip in held.chips)),
        ops=_by_name(answer, traces, node.chips),
    )


def _seconds(step: Step, work: Work) -> float:
    start_s = time.perf_counter()
    step(*work.inputs)
    return time.perf_counter() - start_s


def _busy_s(node: Node) -> list[float]:
    """The processor time so far of this process, then of each chip's."""
    found = [time.process_time()]
    for pid in node.pids:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        user, system = stat.rpartition(")")[2].split()[11:13]
        found.append((int(user) + int(system)) / os.sysconf("SC_CLK_TCK"))
    return found


def _by_name(
    answer: Simulation, traces: Sequence[Trace], chips: int
) -> dict[str, tuple[float, float]]:
    measured: dict[str, float] = {}
    fastest = [min(each) for each in zip(*(_durations(t) for t in traces), strict=True)]
    for span, time_s in zip(traces[0].spans, fastest, strict=True):
        measured[span.name] = measured.get(span.name, 0.0) + time_s / chips
    predicted: dict[str, float] = {}
    for span in answer.trace.spans:
        if span.stream != "host":
            predicted[span.name] = predicted.get(span.name, 0.0) + span.duration_s
    return {name: (predicted.get(name, 0.0), time_s) for name, time_s in measured.items()}


def _durations(trace: Trace) -> list[float]:
    return [span.duration_s for span in trace.spans]
