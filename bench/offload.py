"""Train steps on one chip with values in other places, beside the same steps in memory."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass

import torch

import supernode as sn
from bench.result import Row, Section
from bench.rounds import QUIET_SHARE, Sized, TrainSteps, by_side, quiet_rounds, told, torch_threads
from supernode.models import recipe

HOW = f"""\
Two nodes of one chip each (`sn.connect("local:1")`) train the same model from the same start on the
same data, one with the layout of the row, one with everything in memory. They take turns: in each
round each does the same number of steps. A ratio is the time in memory over the time with values
elsewhere, in the same round; the table shows the median. A round in which other processes used more
than {QUIET_SHARE:.0%} of the cores is taken again. The losses of all steps must be equal, bit for
bit.

A chip that computes with one thread leaves the other core to the copies, as a copy engine would be;
one that computes with all cores shares them and their memory bandwidth with the copies, so that
nothing covers these."""
AT_MOST = 1.15
"""How many times as long a step may take where computing covers the transfers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Sized):
    """A recipe at one size, and what is elsewhere."""

    layout: str
    threads: int


FULL = tuple(
    Case(recipe="gpt-mini", batch=8, sequence=256, steps=2, layout=layout, threads=threads)
    for threads in (1, 2)
    for layout in ("offload=optimizer", "offload=all")
)
QUICK = (Case(recipe="gpt-tiny", batch=2, sequence=16, steps=3, layout="offload=all", threads=1),)


def measure(*, quick: bool = False) -> Section:
    """Every case, with values elsewhere against all in memory."""
    rounds = 2 if quick else 7
    cases = QUICK if quick else FULL
    notes: list[str] = []
    rows = [_row(case, rounds, notes) for case in cases]
    return Section(
        theme="offload",
        title="Values on the host beside values in memory",
        how=HOW,
        recipe={
            "cases": [asdict(case) for case in cases],
            "rounds": rounds,
            "training": {case.recipe: str(recipe(case.recipe).training) for case in cases},
        },
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _row(case: Case, rounds: int, notes: list[str]) -> Row:
    with ExitStack() as nodes:
        nodes.enter_context(torch_threads(case.threads))
        sides: dict[str, TrainSteps] = {}
        for name, layout in (("memory", ""), ("away", case.layout)):
            node = nodes.enter_context(sn.connect("local:1"))
            job = recipe(case.recipe).build(case.batch, sequence=case.sequence)
            step = node.compile(job.step, job.model, job.optimizer, layout=layout)
            sides[name] = TrainSteps(job, step, case.steps)
        for side in sides.values():  # the first round captures and touches memory
            side()
        kept, taken = quiet_rounds(sides, rounds)
    times = by_side([each.times for each in kept])
    torch.testing.assert_close(sides["away"].losses, sides["memory"].losses, rtol=0.0, atol=0.0)
    setting = f"{case.size}, threads: {case.threads}"
    notes.append(f"{setting}, {case.layout}: {told(kept, taken)}")
    headline = f"train step with {case.layout} against all in memory, {setting}"
    return Row(
        what=f"{setting}: all in memory / {case.layout}",
        ours=times["away"],
        theirs=times["memory"],
        at_least=1 / AT_MOST if case.threads == 1 else None,
        headline=headline if case.threads == 1 else "",
    )
