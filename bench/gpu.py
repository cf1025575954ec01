"""One GPU of this host: our steps beside plain PyTorch's, and what the twin says of both."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor

import supernode as sn
from bench.offload import AT_MOST
from bench.one_chip import AT_LEAST
from bench.result import Row, Section
from bench.rounds import alternate
from supernode.machine import Machine, load_machine
from supernode.models import Job, Shape, sized
from supernode.simulate import Rehearsal, Terms
from supernode.trace import MEMORY

HOW = """\
A train step (forward, backward, clipping, plain AdamW) of a model in bfloat16, on one GPU: by eager
PyTorch, by PyTorch with the model compiled (`model.compile()`, where the row says so), by a node of
one chip (`sn.connect("cuda:1")`), and by one with the optimizer's state in the host's memory. Sides
take turns: in each round each does the same number of steps, and waits for the GPU after each. A
ratio is the time of the other side over ours in the same round, the table shows the median. The
losses of eager and node agree to a hundredth after each of the first steps.

Predicted are the eager and the compiled step on this GPU's machine file, which was fitted to
published tables of single kernels and to nothing that ran here: a ratio above 1 says that the
prediction is too short. `peak of memory` is that of torch's allocator; the plan's is
`plan.memory()` for a node, and `simulate`'s for eager PyTorch, which updates in place."""
MACHINES = {"H100": "hgx-h100", "H200": "hgx-h200", "A100": "hgx-a100", "B200": "hgx-b200"}
"""The machine file of a GPU by what its name has."""
ELSEWHERE = "offload=optimizer"
LOSS_TOLERANCE = 1e-2
FIRST = 3

_LLAMA = Shape(family="llama", layers=8, hidden=2048, heads=16, kv_heads=8, vocab=32000, ffn=5632)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model at one size; `steps` in a round."""

    name: str
    shape: Shape
    batch: int
    sequence: int
    steps: int
    compiled: bool = False
    bound: str = "compute-bound"

    @property
    def size(self) -> str:
        """The size in a table."""
        return f"{self.name}, {self.batch} x {self.sequence:,} tokens"

    def job(self) -> Job:
        """The model, on the host, with its step."""
        recipe = sized(self.shape.family, self.shape, sequence=self.sequence, summary="")
        return recipe.build(batch=self.batch)


FULL = (
    Case(name="llama, 0.5 B", shape=_LLAMA, batch=4, sequence=2048, steps=4, compiled=True),
    Case(name="llama, 0.4 B", shape=replace(_LLAMA, layers=6), batch=1, sequence=16384, steps=3),
    Case(
        name="gpt2",
        shape=Shape(family="gpt", layers=12, hidden=768, heads=12, vocab=50304, ffn=3072),
        batch=16,
        sequence=1024,
        steps=6,
        compiled=True,
    ),
    Case(
        name="8 experts",
        shape=replace(_LLAMA, layers=4, hidden=1024, experts=8, topk=2, expert_ffn=1408),
        batch=4,
        sequence=2048,
        steps=8,
        compiled=True,
    ),
    Case(
        name="llama, 20 M",
        shape=replace(_LLAMA, layers=4, hidden=512, heads=8, kv_heads=4, vocab=8000, ffn=1408),
        batch=8,
        sequence=256,
        steps=20,
        bound="overhead-bound",
    ),
)
QUICK = (replace(FULL[-1], steps=2),)


def measure(*, quick: bool = False) -> Section:
    """Every case on the first GPU."""
    cases, rounds = (QUICK, 2) if quick else (FULL, 5)
    return Section(
        theme="gpu",
        title="One GPU: our steps beside plain PyTorch's",
        how=HOW,
        recipe={"cases": [str(case) for case in cases], "rounds": rounds},
        rows=tuple(row for case in cases for row in _rows(case, rounds)),
        device=torch.cuda.get_device_name(),
    )


def _rows(case: Case, rounds: int) -> list[Row]:
    with ExitStack() as nodes:
        sides = {"eager": _eager(case)}
        if case.compiled:
            sides["compiled"] = _eager(case, compiled=True)
        steps: dict[str, sn.Step] = {}
        for name, layout in (("node", ""), ("away", ELSEWHERE)):
            node = nodes.enter_context(sn.connect("cuda:1"))
            job = case.job()
            assert isinstance(job.optimizer, torch.optim.Optimizer)
            steps[name] = node.compile(job.step, job.model, job.optimizer, layout=layout)
            sides[name] = _Steps(steps[name], job.inputs, case.steps)
        times = alternate(sides, rounds)
        _, trace = steps["node"].traced_memory(*sides["node"].inputs)
        held_bytes, peak_bytes = sides["eager"].peak_bytes, trace.peak(MEMORY, 0)
        torch.testing.assert_close(
            sides["node"].losses, sides["eager"].losses, rtol=LOSS_TOLERANCE, atol=0.0
        )
        plan = steps["node"].plan
    rehearsal, machine = Rehearsal(plan), _machine()
    return [
        _against(case, times["node"], times["eager"]),
        Row(
            what=f"{case.size}: all in memory / {ELSEWHERE}",
            ours=times["away"],
            theirs=times["node"],
            at_least=1 / AT_MOST if case.bound == "compute-bound" else None,
        ),
        *_predicted(case, rehearsal, machine, times),
        _memory(case, "a node, measured / planned", plan.memory().peak_bytes, peak_bytes),
        _memory(
            case, "eager, measured / predicted", rehearsal.on(machine).memory.peak_bytes, held_bytes
        ),
    ]


def _against(case: Case, ours: tuple[float, ...], theirs: tuple[float, ...]) -> Row:
    return Row(
        what=f"{case.size}: eager / node of one chip, {case.bound}",
        ours=ours,
        theirs=theirs,
        at_least=AT_LEAST[case.bound],
        headline=f"train step on one {torch.cuda.get_device_name()} against eager, {case.size}",
    )


class _Steps:
    """Rounds of steps on the same inputs; the first few give `losses`."""

    def __init__(self, step: Callable[..., Tensor], inputs: Sequence[Tensor], count: int) -> None:
        self.inputs = inputs
        self._step, self._count = step, count
        self.losses = [float(step(*inputs)) for _ in range(FIRST)]
        self.peak_bytes = torch.cuda.max_memory_allocated()

    def __call__(self) -> float:
        """Runs a round; the seconds of a step."""
        start = perf_counter()
        for _ in range(self._count):
            self._step(*self.inputs)
            torch.cuda.synchronize()
        return (perf_counter() - start) / self._count


def _eager(case: Case, *, compiled: bool = False) -> _Steps:
    job = case.job()
    job.model.cuda()
    if compiled:
        job.model.compile()
    before = torch.cuda.memory_allocated() - sum(each.nbytes for each in job.model.parameters())
    torch.cuda.reset_peak_memory_stats()
    steps = _Steps(job.step, [each.cuda() for each in job.inputs], case.steps)
    steps.peak_bytes -= before
    return steps


def _predicted(
    case: Case, rehearsal: Rehearsal, machine: Machine, times: dict[str, tuple[float, ...]]
) -> list[Row]:
    kinds = {"eager": Terms(fusion=False, graph=False), "compiled": Terms(graph=False)}
    return [
        Row(
            what=f"{case.size}: {name}, measured / predicted",
            ours=(rehearsal.on(machine, terms=terms).step_s,) * len(times[name]),
            theirs=times[name],
        )
        for name, terms in kinds.items()
        if name in times
    ]


def _machine() -> Machine:
    name = torch.cuda.get_device_name()
    return load_machine(next(file for key, file in MACHINES.items() if key in name))


def _memory(case: Case, what: str, planned: float, measured: float) -> Row:
    what = f"{case.size}: peak of memory of {what}"
    return Row(what=what, ours=(planned,), theirs=(measured,), unit="B")
