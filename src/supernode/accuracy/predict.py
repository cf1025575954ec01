"""A case predicted: capture, partition, simulate, as `supernode simulate` does it.

Captured Programs are shared: by the cases of one process, and through a folder by those of other
processes and later calls, as long as the code that captures is the same.
"""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import fsum
from pathlib import Path

from supernode.accuracy.case import Case, Collective, NotExpressed, Operator, Spec, Step
from supernode.accuracy.parts import collective_plan, operator_plan
from supernode.capture import capture
from supernode.errors import SupernodeError
from supernode.ir import Program, from_json, to_json
from supernode.machine import Machine, Sourced, load_machine
from supernode.models import sized
from supernode.partition import parse_line, partition
from supernode.plan import Plan
from supernode.simulate import Simulation, Terms, cost_in, simulate, time_range

ROOMS_OF_A_CAPTURE = ("capture", "ir", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The time of a case, the range it states, and whether its plans fit the chips."""

    time_s: float
    low_s: float
    high_s: float
    fits: bool
    causes_s: dict[str, float]


class Predictor:
    """Predicts cases; `folder` keeps captured Programs."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._programs: dict[tuple[object, ...], Program] = {}
        self._plans: dict[tuple[object, ...], Plan] = {}

    def predict(self, case: Case) -> Prediction:
        """The prediction of a case.

        Raises:
            NotExpressed: the plan or the machine can't be had; the reason is what a user would see.
        """
        try:
            machine = machine_for(case)
            found = [(times, self._simulated(spec, machine)) for times, spec in case.parts]
        except SupernodeError as error:
            raise NotExpressed(_reason(error)) from error
        return _sum(case, found)

    def _simulated(self, spec: Spec, machine: Machine) -> tuple[Simulation, float]:
        """The simulation, and of it the time that counts."""
        if isinstance(spec, Collective):
            terms = Terms(small_at_once=spec.small_at_once)
            sim = simulate(collective_plan(spec), machine, terms=terms)
            return sim, sim.comm_s
        if isinstance(spec, Operator) and spec.step is None:
            plan, ideal_s = operator_plan(spec, machine)
            sim = simulate(plan, machine, cost=cost_in(spec.dtype))
            return sim, sim.compute_s / ideal_s
        step = spec.step if isinstance(spec, Operator) else spec
        assert step is not None
        parse_line(step.layout, step.chips)  # a line that can't be is refused before a capture
        machine.level_spanning(step.chips)
        plan = self._plan(step, self.program(step))
        serving = Terms(small_at_once=step.phase != "train")
        sim = simulate(plan, machine, cost=cost_in(step.precision), terms=serving)
        if isinstance(spec, Operator):
            return sim, _half(sim, spec.half, step.shape.layers)
        return sim, sim.step_s

    def _plan(self, step: Step, program: Program) -> Plan:
        """The last plan is kept: rows often differ in machine or precision alone."""
        key = (step.capture_key, step.layout)
        if key not in self._plans:
            self._plans = {key: partition(program, step.layout, step.chips)}
        return self._plans[key]

    def program(self, step: Step) -> Program:
        """The captured Program of a step."""
        key = step.capture_key
        if key not in self._programs:
            self._programs = {key: self._kept(step)}
        return self._programs[key]

    def _kept(self, step: Step) -> Program:
        if self._folder is None:
            return captured(step)
        name = hashlib.sha256(f"{step.capture_key}{code_version(ROOMS_OF_A_CAPTURE)}".encode())
        path = self._folder / f"{name.hexdigest()[:24]}.json"
        if path.is_file():
            return from_json(path.read_text(encoding="utf-8"))
        program = captured(step)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(to_json(program), encoding="utf-8")
        part.replace(path)
        return program


def captured(step: Step) -> Program:
    """The Program of a step, captured on meta as the command line does."""
    import torch

    recipe = sized(step.shape.family, step.shape, sequence=step.sequence, summary="")
    training = replace(recipe.training, dtype=getattr(torch, step.dtype))
    job = replace(recipe, training=training).build(
        batch=step.batch,
        device="meta",
        sequence=step.sequence,
        phase=step.phase,
        ahead=step.ahead,
    )
    return capture(job.step, job.model, job.optimizer, job.inputs, name=recipe.name).program


def machine_for(case: Case) -> Machine:
    """The machine of a case, on the network that its row states."""
    machine = load_machine(case.machine)
    rate = case.network_bytes_per_s
    if rate is None:
        return machine
    stated = Sourced(value=rate, source=case.source, date="", kind="datasheet", note="the row")
    levels = tuple(
        replace(level, bandwidth_bytes_per_s=stated) if level.name == "network" else level
        for level in machine.levels
    )
    return replace(machine, levels=levels)


def _half(sim: Simulation, phase: str, layers: int) -> float:
    """What one of the layers does in a phase, computing and communicating."""
    spans = [
        span.end_s - span.start_s
        for span in sim.trace.spans
        if span.module.startswith("blocks.") and span.phase == phase
    ]
    if not spans:
        raise NotExpressed(f"the timeline has no layer with a {phase} phase")
    return fsum(spans) / layers


def _sum(case: Case, found: Iterable[tuple[float, tuple[Simulation, float]]]) -> Prediction:
    time_s = low_s = high_s = 0.0
    causes: dict[str, float] = {}
    fits = True
    for times, (sim, part) in found:
        low, high = time_range(sim)
        time_s += times * part
        low_s += times * part * low / sim.step_s
        high_s += times * part * high / sim.step_s
        fits &= sim.fits
        for cause, cause_s in sim.critical_s.items():
            share = cause_s / sim.step_s * part * times
            causes[cause] = causes.get(cause, 0.0) + share
    return Prediction(time_s=time_s, low_s=low_s, high_s=high_s, fits=fits, causes_s=causes)


def _reason(error: SupernodeError) -> str:
    return f"{type(error).__name__}: {error.wrong}".splitlines()[0]


@functools.lru_cache
def code_version(rooms: tuple[str, ...] = ()) -> str:
    """A digest of the sources and machine files of these rooms, by default of all."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted((*root.rglob("*.py"), *root.rglob("*.toml"))):
        where = path.relative_to(root)
        if not rooms or where.parts[0] in rooms:
            digest.update(f"{where.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
