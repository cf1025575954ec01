"""A captured step on one chip beside eager PyTorch: in this process, and through a node."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from torch import Tensor

import supernode as sn
from bench.result import Row, Section, alternate
from supernode.capture import capture
from supernode.kernels import generate
from supernode.models import Job, recipe

HOW = """\
One process runs eager PyTorch and, from the same start on the same data, the captured step as
generated code; a node of one chip (`sn.connect("local:1")`) runs it once more in a worker process.
The three take turns: in each round each does the same number of steps. A ratio is eager's time
over ours in the same round, the table shows the median. The losses of all steps must agree."""
LOSS_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe at one size, and how many steps a round has."""

    recipe: str
    batch: int
    sequence: int
    steps: int
    bound: str


FULL = (
    Case(recipe="gpt-mini", batch=8, sequence=256, steps=2, bound="compute"),
    Case(recipe="gpt-mini", batch=1, sequence=64, steps=8, bound="memory"),
    Case(recipe="gpt-tiny", batch=1, sequence=16, steps=100, bound="overhead"),
)
QUICK = (Case(recipe="gpt-tiny", batch=1, sequence=16, steps=5, bound="overhead"),)


def measure(*, quick: bool = False) -> Section:
    """Every case, each eager against generated code and against a node of one chip."""
    rounds = 3 if quick else 9
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for case in (QUICK if quick else FULL) for row in _rows(case, rounds)]
    finally:
        torch.set_num_threads(threads)
    cases = [asdict(case) for case in (QUICK if quick else FULL)]
    return Section(
        theme="one-chip",
        title="One chip: the captured step beside eager",
        how=HOW,
        recipe={"cases": cases, "rounds": rounds, "threads": 1, "training": _training(cases)},
        rows=tuple(rows),
    )


def _training(cases: list[dict[str, object]]) -> dict[str, str]:
    return {str(case["recipe"]): str(recipe(str(case["recipe"])).training) for case in cases}


class InProcess:
    """A captured step as generated code on plain tensors, its state in two copies as on a chip."""

    def __init__(self, job: Job) -> None:
        captured = capture(job.step, job.model, job.optimizer, job.inputs)
        self._captured = captured
        self._step = generate(captured.program)
        self._ports = [port.name for port in captured.program.inputs]
        state = captured.inputs()
        self._state = {name: x.clone() if isinstance(x, Tensor) else x for name, x in state.items()}
        self._spare = {name: x.clone() for name, x in state.items() if isinstance(x, Tensor)}

    def __call__(self, *batch: Tensor) -> Tensor:
        program, captured = self._captured.program, self._captured
        named = {**self._state, **captured.bind(*batch), **captured.host_values()}
        out: list[Tensor | None] = [None] * len(program.updates)
        for position in self._step.destinations:
            out[position] = self._spare[self._ports[program.updates[position]]]
        outputs = self._step([named[name] for name in self._ports], out)
        for position, source in enumerate(program.updates):
            if source is not None:
                name, value = self._ports[source], outputs[position]
                if out[position] is not None:
                    self._spare[name] = self._state[name]
                self._state[name] = value
        captured.after_step()
        return captured.result([outputs[i] for i, s in enumerate(program.updates) if s is None])


class Side:
    """One way to run the steps of a job: its own data, and the losses so far."""

    def __init__(self, job: Job, step: Callable[..., Tensor], steps: int) -> None:
        assert job.batches is not None, "the recipe has no data"
        self._batches, self._step, self._steps = job.batches(), step, steps
        self.losses: list[float] = []

    def __call__(self) -> float:
        """Runs a round; the seconds of a step."""
        batches = list(islice(self._batches, self._steps))
        start = time.perf_counter()
        losses = [self._step(*batch) for batch in batches]
        seconds = (time.perf_counter() - start) / self._steps
        self.losses += [float(loss) for loss in losses]
        return seconds


def _rows(case: Case, rounds: int) -> list[Row]:
    jobs = [recipe(case.recipe).build(case.batch, sequence=case.sequence) for _ in range(3)]
    eager, inside, on_node = jobs
    with sn.connect("local:1") as node:
        step = node.compile(on_node.step, on_node.model, on_node.optimizer)
        sides = {
            "eager": Side(eager, eager.step, case.steps),
            "generated": Side(inside, InProcess(inside), case.steps),
            "node": Side(on_node, step, case.steps),
        }
        for side in sides.values():  # the first round captures, compiles and touches memory
            side()
        times = alternate(sides, rounds)
    for side in sides.values():
        torch.testing.assert_close(
            side.losses, sides["eager"].losses, rtol=LOSS_TOLERANCE, atol=0.0
        )
    size = f"{case.recipe}, {case.batch} x {case.sequence} tokens, {case.bound}-bound"
    return [
        Row(
            what=f"{size}: eager / {name}",
            ours=times[key],
            theirs=times["eager"],
            at_least=0.95,
            headline=f"train step on one chip against eager, {size}" if key == "node" else "",
        )
        for key, name in (("generated", "generated code in process"), ("node", "node of one chip"))
    ]
