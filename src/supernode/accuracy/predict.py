"""A case predicted: capture, partition, simulate, as `supernode simulate` does it.

Plans are shared by the cases of one process, captured Programs through a folder by all.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import fsum, prod
from pathlib import Path

from supernode.accuracy.case import (
    Access,
    Case,
    Collective,
    NotExpressed,
    Operator,
    Serving,
    Step,
)
from supernode.accuracy.kept import Kept, Prediction
from supernode.accuracy.loop import NEAR, Pass, decoding, settled, token
from supernode.accuracy.parts import access_plan, collective_plan, operator_plan
from supernode.accuracy.shorter import shortened
from supernode.capture import capture
from supernode.errors import SupernodeError
from supernode.ir import Program
from supernode.machine import Machine, Sourced, load_machine
from supernode.models import sized
from supernode.partition import parse_line, partition
from supernode.simulate import (
    Doubt,
    Rehearsal,
    Simulation,
    Terms,
    by_host,
    cost_in,
    range_of,
    simulate,
)
from supernode.simulate.range import SERVING

MOST_KEPT = 4
"""So many plans are held, for the rows that follow."""

Found = tuple[float, Simulation, float]
"""How often a simulation counts, it, and of its time what counts."""
Part = tuple[float, list[Found]]
"""How often the sum of some simulations counts."""


class Predictor:
    """Predicts cases; `folder` keeps captured Programs and predictions."""

    def __init__(self, folder: Path | None) -> None:
        self.kept = Kept(folder, machine_for)
        self._ready: dict[tuple[object, ...], Rehearsal] = {}

    def predict(self, case: Case) -> Prediction:
        """The prediction of a case.

        Raises:
            NotExpressed: the plan or the machine can't be had; the reason is what a user would see.
        """
        try:
            machine = machine_for(case)
            found: list[Part] = []
            host_s = 0.0
            whole: list[Found] = []  # of a step that is a mixture of several
            for times, spec in case.parts:
                if isinstance(spec, Step):
                    whole += [(times * n, sim, s) for n, sim, s in self._whole(spec, machine)]
                elif isinstance(spec, Serving):
                    parts, waited_s = self._served(spec, machine)
                    host_s += times * waited_s
                    found += [(times * often, sims) for often, sims in parts]
                else:
                    found.append((times, [self._found(spec, machine)]))
            found += [(1.0, whole)] if whole else []
        except SupernodeError as error:
            raise NotExpressed(_reason(error)) from error
        return _prediction(found, host_s)

    def _found(self, spec: Collective | Access | Operator, machine: Machine) -> Found:
        """The simulation of a plan with one op, or of a layer that is looked up."""
        if isinstance(spec, Collective):
            terms = Terms(small_at_once=spec.small_at_once)
            sim = simulate(collective_plan(spec), machine, terms=terms)
            return 1.0, sim, sim.comm_s
        if isinstance(spec, Access):
            sim = simulate(access_plan(spec), machine, terms=Terms(host=False))
            return 1.0, sim, sim.step_s
        if spec.step is None:
            plan, ideal_s = operator_plan(spec, machine)
            sim = simulate(plan, machine, cost=cost_in(spec.dtype))
            return 1.0, sim, sim.compute_s / ideal_s
        sim = self.simulated(spec.step, machine)
        return 1.0, sim, _half(sim, spec.half, spec.step.shape.layers)

    def _served(self, spec: Serving, machine: Machine) -> tuple[list[Part], float]:
        """What an output token is made of, and how long the chips wait in it for the host; of fewer
        requests than are out, if many of them wait."""
        prompts = self._whole(spec.prompts, machine) if spec.prompts else []
        prompts_s = _sum(prompts)
        all_ = self._whole(spec.decode, machine)
        batch, at = float(spec.decode.batch), _pass(all_)
        between = [(1.0, all_)]
        token_s = token(spec, batch, at, prompts_s).time_s(at, prompts_s)
        few = decoding(spec, token_s, prompts_s)
        ranks = _ranks(spec.decode.layout)
        fewer = replace(spec.decode, batch=max(1, round(few / ranks)) * ranks)
        if fewer.batch < NEAR * batch:
            found = self._whole(fewer, machine)
            decode = settled(spec, fewer.batch, _pass(found), at, prompts_s)
            far = (decode - fewer.batch) / (batch - fewer.batch)
            batch, at = decode, _pass(found).towards(at, far)
            between = [(1 - far, found), (far, all_)]
        made = token(spec, batch, at, prompts_s)
        parts = [(often, _counted(sims, made.decode, made.attention)) for often, sims in between]
        return [*parts, (made.prompts, prompts)] if prompts else parts, made.host_s

    def _whole(self, step: Step, machine: Machine) -> list[Found]:
        sims = [(often, self.simulated(less, machine)) for often, less in shortened(step)]
        return [(often, sim, sim.step_s) for often, sim in sims]

    def simulated(self, step: Step, machine: Machine) -> Simulation:
        """The step as it is, whole."""
        parse_line(step.layout, step.chips)  # a line that can't be is refused before a capture
        machine.level_spanning(step.chips)
        return self._rehearsal(step).on(machine, terms=step.terms)

    def _rehearsal(self, step: Step) -> Rehearsal:
        """The last ones are kept: rows often differ in machine alone."""
        costed = (step.precision, step.cache, step.graphs, step.casts, step.beside)
        key = (step.capture_key, step.layout, *costed)
        if key not in self._ready:
            plan = partition(self.program(step), step.layout, step.chips)
            kept = list(self._ready.items())[1 - MOST_KEPT :]
            cost = cost_in(step.precision, step.cache, trains=step.phase == "train")
            if step.graphs is not None:
                cost = by_host(cost, graphs=step.graphs, casts=step.casts, beside=step.beside)
            self._ready = dict([*kept, (key, Rehearsal(plan, cost))])
        return self._ready[key]

    def program(self, step: Step) -> Program:
        """The captured Program of a step."""
        return self.kept.program(step.capture_key, lambda: captured(step))


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
    machine = _machine(case.machine)
    rate = case.network_bytes_per_s
    if rate is None:
        return machine
    stated = Sourced(value=rate, source=case.source, date="", kind="datasheet", note="the row")
    levels = tuple(
        replace(level, bandwidth_bytes_per_s=stated) if level.name == "network" else level
        for level in machine.levels
    )
    return replace(machine, levels=levels)


@functools.lru_cache
def _machine(name: str) -> Machine:
    return load_machine(name)


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


def _ranks(layout: str) -> int:
    """How many groups of chips a layout cuts the batch for."""
    axes = parse_line(layout).axes
    return prod(axis.size for axis in axes if axis.scheme.batch and not axis.scheme.time)


def _sum(found: Sequence[Found]) -> float:
    return fsum(often * part_s for often, _, part_s in found)


def _pass(found: Sequence[Found]) -> Pass:
    attention_s = fsum(often * _attention_s(sim) for often, sim, _ in found)
    return Pass(time_s=_sum(found), attention_s=attention_s)


def _counted(found: Sequence[Found], whole: float, attention: float) -> list[Found]:
    """The simulations, of each of which so much of the whole and of its attention counts."""
    return [
        (often, sim, whole * sim.step_s + attention * _attention_s(sim)) for often, sim, _ in found
    ]


def _attention_s(sim: Simulation) -> float:
    spans = (span for span in sim.trace.spans if "attention" in span.name)
    return fsum(span.end_s - span.start_s for span in spans)


def _prediction(parts: Sequence[tuple[float, Sequence[Found]]], host_s: float) -> Prediction:
    """What all parts take, with the causes and doubts of each in proportion, and the host."""
    causes: dict[str, float] = defaultdict(float)
    doubts: dict[Doubt, float] = defaultdict(float)
    fits = True
    for times, found in parts:
        for often, sim, counted_s in found:
            share = times * often * counted_s / sim.step_s
            for cause, cause_s in sim.critical_s.items():
                causes[cause] += share * cause_s
            for doubt, part_s in sim.doubts.items():
                doubts[doubt] += share * part_s
        peak_bytes = fsum(often * sim.memory.peak_bytes for often, sim, _ in found)
        first = found[0][1]
        fits &= peak_bytes + first.outside_bytes <= first.capacity_bytes
    time_s = fsum(times * often * part_s for times, found in parts for often, _, part_s in found)
    if host_s:
        causes["host"] += host_s
        doubts[Doubt("serving software", SERVING)] += host_s
        time_s += host_s
    low_s, high_s = range_of(time_s, doubts)
    return Prediction(time_s=time_s, low_s=low_s, high_s=high_s, fits=fits, causes_s=dict(causes))


def _reason(error: SupernodeError) -> str:
    return f"{type(error).__name__}: {error.wrong}".splitlines()[0]
