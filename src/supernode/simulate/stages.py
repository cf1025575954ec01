"""A chip of each stage of a plan: what it has to do, found once, whatever the machine's numbers.

Without a pipeline there is one stage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernode.plan import Plan, Task, memory
from supernode.plan.memory import MemoryUse
from supernode.plan.storage import Callee
from supernode.simulate.ask import Asks
from supernode.simulate.chain import Chains
from supernode.simulate.line import lines
from supernode.simulate.reserved import Holder, Replays
from supernode.simulate.routine import Stint
from supernode.simulate.schedule import schedule_stages
from supernode.simulate.side_by_side import CostOf
from supernode.simulate.terms import Handling

Counts = NDArray[np.int64]
Labels = NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The tasks of all stages in turn, each with its stint; `ranks` are the chips.

    The ops of all tasks follow one another: those of task `i` begin with op `begins[i]`, op `j` is
    number `positions[j]` of its chip, asks for `asked[j]` and belongs to `labels[j]` of the
    pipeline's schedule. The tasks of stage `s` begin with task `first[s]`.
    """

    ranks: Sequence[int]
    memories: Sequence[MemoryUse]
    replays: Replays
    asks: Asks
    chains: Chains
    tasks: Sequence[Task]
    stints: Sequence[Stint]
    first: Sequence[int]
    begins: Counts
    asked: Counts
    positions: Counts
    labels: Labels


def stages_of(plan: Plan, cost: CostOf, how: Handling) -> Stages:
    """The stages of `plan`, whose ops are handled so."""
    ranks, programs = zip(*plan.stages(), strict=True)
    todo = [list(lines(program)) for program in programs]
    own = {id(line.block): stage for stage, each in enumerate(todo) for line in each}
    own = own if plan.mesh.stages else {}  # else they share blocks
    asks = Asks(plan, cost, how, stages=own)
    schedules = schedule_stages(todo, asks, bubble=how.bubble, prefetch=how.prefetch)
    stints = [stint for schedule in schedules for stint in schedule.stints]
    firsts = _counts(first for schedule in schedules for first in schedule.firsts)
    sizes = _counts(len(stint.works) for stint in stints)
    counts = [len(schedule.tasks) for schedule in schedules]
    known: dict[int, Callee] = {}
    memories: list[MemoryUse] = []
    holders: list[Holder] = []
    for rank, program, schedule in zip(ranks, programs, schedules, strict=True):
        lent_bytes, early = plan.lent_bytes(rank, in_place=True), schedule.early
        use = memory(program, early=early, known=known).lending(lent_bytes)
        memories.append(use)
        holders.append(
            Holder(program=program, early=early, lent_bytes=lent_bytes, peak_bytes=use.peak_bytes)
        )
    return Stages(
        ranks=ranks,
        memories=memories,
        replays=Replays(holders, known),
        asks=asks,
        chains=Chains(todo, asks, bubble=how.bubble),
        tasks=[task for schedule in schedules for task in schedule.tasks],
        stints=stints,
        first=np.cumsum([0, *counts]).tolist(),
        begins=np.concatenate(([0], sizes.cumsum())),
        asked=_chained([stint.asks for stint in stints]),
        positions=_chained([stint.places for stint in stints]) + np.repeat(firsts, sizes),
        labels=_labels(stints, [label for schedule in schedules for label in schedule.labels]),
    )


def _counts(of: Iterable[int]) -> Counts:
    return np.array(list(of), dtype=np.int64)


def _chained(parts: Sequence[Counts]) -> Counts:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _labels(stints: Sequence[Stint], of_calls: Sequence[str]) -> Labels:
    """Ops of a call belong where the call does, those between calls each where they say."""
    found: list[str] = []
    for stint, label in zip(stints, of_calls, strict=True):
        if label:
            found += [label] * len(stint.works)
        else:
            found += [work.op.site.task for work in stint.works]
    return np.array(found, dtype=object)
