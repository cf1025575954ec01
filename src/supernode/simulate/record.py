"""The Trace of a simulated step."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from supernode.machine import Machine
from supernode.plan import Plan
from supernode.simulate.ask import Work
from supernode.simulate.played import Played
from supernode.simulate.stages import Stages
from supernode.trace import COMPUTE, COUNTER, HOST, MEMORY, SPAN, Counter, Json, Rows, Span, Trace

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Recorder:
    """Writes down steps of the same stages."""

    def __init__(self, plan: Plan, stages: Stages) -> None:
        self._plan, self._stages = plan, stages

    def trace(self, machine: Machine, tokens: int | None, played: Played, host_s: float) -> Trace:
        """All that the chip of each stage did, the host's part first, and the memory it took."""
        return Trace(
            name=f"{self._plan.program.name} on {machine.name}",
            spans=self._spans(played, host_s),
            counters=self._counters(played),
            meta=_meta(self._plan, machine, tokens),
        )

    def _spans(self, played: Played, host_s: float) -> Rows[Span]:
        kinds, which = self._ops
        start_s, end_s, task = played.start_s, played.end_s, self._stages.labels
        if host_s:
            ranks = self._stages.ranks
            first = self._stages.begins[self._stages.first[:-1]]
            which = np.insert(which, first, len(kinds) + np.arange(len(ranks)))
            start_s, end_s = np.insert(start_s, first, 0.0), np.insert(end_s, first, host_s)
            kinds, task = (*kinds, *map(_host, ranks)), np.insert(task, first, "")
        return Rows(kinds, which, dict(zip(SPAN, (start_s, end_s, task), strict=True)))

    @cached_property
    def _ops(self) -> tuple[tuple[Span, ...], Ints]:
        """What is done, each once for a chip, and which of that each op is."""
        kinds: list[Span] = []
        which: list[Ints] = []
        stages = self._stages
        for rank, first, end in zip(stages.ranks, stages.first, stages.first[1:], strict=False):
            known: dict[int, Ints] = {}
            for stint in stages.stints[first:end]:
                if id(stint) not in known:
                    known[id(stint)] = len(kinds) + np.arange(len(stint.works))
                    kinds += [_kind_of(work, rank, stages) for work in stint.works]
                which.append(known[id(stint)])
        return tuple(kinds), np.concatenate([np.empty(0, dtype=np.int64), *which])

    def _counters(self, played: Played) -> Rows[Counter]:
        """Memory by time: at each op that computes the most since the one before it."""
        step_s = np.array([played.times.step_s])
        at_s: list[Floats] = []
        values: list[Floats] = []
        which: list[Ints] = []
        for stage, (ops, levels) in enumerate(self._levels):
            at_s += [played.start_s[ops], step_s[: len(levels) - len(ops)]]
            values.append(levels)
            which.append(np.full(len(levels), stage))
        kinds = [
            Counter(name=MEMORY, chip=rank, at_s=0.0, value=0.0) for rank in self._stages.ranks
        ]
        columns = zip(COUNTER, map(np.concatenate, (at_s, values)), strict=True)
        return Rows(kinds, np.concatenate(which), dict(columns))

    @cached_property
    def _levels(self) -> list[tuple[Ints, Floats]]:
        """Of each stage, the ops at which the memory in use changes, and to how much.

        One number more is what is in use after the last op.
        """
        return list(self._found_levels())

    def _found_levels(self) -> Iterator[tuple[Ints, Floats]]:
        stages = self._stages
        computes = np.array([ask.stream == COMPUTE for ask in stages.asks.of], dtype=bool)
        for stage, used in enumerate(stages.memories):
            begin, end = stages.begins[[stages.first[stage], stages.first[stage + 1]]]
            ops = begin + np.flatnonzero(computes[stages.asked[begin:end]])
            timeline = np.array(used.timeline, dtype=np.float64)
            if not len(timeline):
                yield ops, timeline
                continue
            seen = np.concatenate(([0], stages.positions[ops] + 1))
            rest = len(timeline) > seen[-1]
            most = np.maximum.reduceat(timeline, seen if rest else seen[:-1])
            changed = np.concatenate(([True], most[1:] != most[:-1]))
            if rest:
                changed[-1] = True
            yield ops[changed[: len(ops)]], most[changed]


def _host(rank: int) -> Span:
    return Span(name=HOST, chip=rank, stream=HOST, start_s=0.0, end_s=0.0, kind=HOST)


def _kind_of(work: Work, rank: int, stages: Stages) -> Span:
    op, ask = work.op, stages.asks.of[work.ask]
    return Span(
        name=op.name,
        chip=rank,
        stream=ask.stream,
        start_s=0.0,
        end_s=0.0,
        module=op.site.module,
        phase=op.site.phase,
        flops=ask.flops,
        bytes=ask.bytes,
        kind=ask.kind,
    )


def _meta(plan: Plan, machine: Machine, tokens: int | None) -> dict[str, Json]:
    numbers: dict[str, Json] = {
        key: {"value": n.value, "kind": n.kind, "source": n.source, "date": n.date}
        for key, n in machine.numbers()
    }
    return {
        "kind": "simulated",
        "program": plan.program.name,
        "layout": plan.layout,
        "mesh": {name: size for name, size in plan.mesh.axes},
        "chips": plan.mesh.size,
        "represents": "a chip of each stage stands for all of it"
        if plan.is_staged
        else "chip 0 stands for all chips",
        "tokens": tokens,
        "machine": machine.name,
        "machine_numbers": numbers,
    }
