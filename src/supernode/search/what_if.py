"""What would make a step faster: other numbers of the machine, other layouts; each simulated."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from supernode.errors import SupernodeError
from supernode.machine import Machine, Sourced
from supernode.partition import partition
from supernode.simulate import Rehearsal, Simulation, Terms, simulate
from supernode.simulate.simulate import ALL

SPACE = ("dp", "zero1", "fsdp", "tp", "cp", "ep")
LEAST_GAIN = 0.005
"""A change that saves less of the step is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change, the step it would give, and what part of the present step that saves."""

    name: str
    step_s: float
    gain: float


def best_changes(
    rehearsal: Rehearsal,
    machine: Machine,
    present: Simulation,
    *,
    terms: Terms = ALL,
    count: int = 3,
) -> list[Change]:
    """What would save most of the `present` step of a rehearsed plan; at most `count` changes.

    They are of the machine (a rate twice, a latency half) and of the layout (an axis by another
    scheme, a factor of 2 moved between axes).
    """
    plan, cost = rehearsal.plan, rehearsal.cost
    found: list[Change] = []
    for name, other in machine_changes(machine):
        found.append(_change(name, rehearsal.on(other, terms=terms), present))
    for line in neighbours(plan.layout):
        try:
            planned = partition(plan.program, line, plan.mesh.size)
            sim = simulate(planned, machine, cost=cost, terms=terms)
        except SupernodeError:
            continue  # a neighbour need not be a layout of this program
        if sim.fits:
            found.append(_change(f"layout {line}", sim, present))
    found.sort(key=lambda change: (-change.gain, change.name))
    return [change for change in found[:count] if change.gain >= LEAST_GAIN]


def _change(name: str, sim: Simulation, present: Simulation) -> Change:
    gain = 1 - sim.step_s / present.step_s if present.step_s else 0.0
    return Change(name=name, step_s=sim.step_s, gain=gain)


def machine_changes(machine: Machine) -> Iterator[tuple[str, Machine]]:
    """Machines that are better in one respect."""
    chip = machine.chip

    def better(number: Sourced, factor: float) -> Sourced:
        return number.scaled(factor, "what if")

    peaks = {key: better(rate, 2) for key, rate in chip.peak_flops_per_s.items()}
    yield "matrix units twice as fast", replace(machine, chip=replace(chip, peak_flops_per_s=peaks))
    memory = replace(
        chip.memory, bandwidth_bytes_per_s=better(chip.memory.bandwidth_bytes_per_s, 2)
    )
    yield "memory twice as fast", replace(machine, chip=replace(chip, memory=memory))
    launch = replace(chip, launch_overhead_s=better(chip.launch_overhead_s, 0.5))
    yield "launches half as long", replace(machine, chip=launch)
    for at, level in enumerate(machine.levels):
        wide = replace(level, bandwidth_bytes_per_s=better(level.bandwidth_bytes_per_s, 2))
        near = replace(level, latency_s=better(level.latency_s, 0.5))
        for what, other in (("bandwidth twice", wide), ("latency half", near)):
            levels = (*machine.levels[:at], other, *machine.levels[at + 1 :])
            yield f"{level.name} {what}", replace(machine, levels=levels)


def neighbours(line: str) -> Iterator[str]:
    """Layout lines one step away: a scheme that splits the batch for another, tokens split too, a
    factor of 2 moved from one axis to another."""
    parts = [word.partition("=") for word in line.split(",") if word]
    words = [(name, size) for name, _, size in parts]
    sizes = {name: int(size) for name, size in words if size.isdecimal()}

    def said(names: dict[str, str], changed: dict[str, int]) -> str:
        return ",".join(
            names.get(name, name) + (f"={changed.get(name, size)}" if size else "")
            for name, size in words
            if changed.get(name) != 1
        )

    batch = ("dp", "zero1", "fsdp")
    for old in batch:
        for new in batch:
            if old in sizes and new not in sizes:
                yield said({old: new}, {})
    if "tp" in sizes and "sp" not in dict(words):
        yield f"{line},sp"
    for source in SPACE:
        for target in SPACE:
            if source != target and {source, target} <= sizes.keys() and sizes[source] % 2 == 0:
                yield said({}, {source: sizes[source] // 2, target: sizes[target] * 2})
