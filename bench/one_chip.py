"""A captured step on one chip beside eager PyTorch: in this process, and through a node."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

import supernode as sn
from bench.result import Row, Section
from bench.rounds import QUIET_SHARE, Sized, TrainSteps, by_side, quiet_rounds, told, torch_threads
from supernode.capture import capture
from supernode.kernels import generate
from supernode.models import Job, recipe

HOW = f"""\
One process runs eager PyTorch and, from the same start on the same data, the captured step as
generated code; a node of one chip (`sn.connect("local:1")`) runs it once more in a worker process.
The three take turns: in each round each does the same number of steps. A ratio is eager's time
over ours in the same round, the table shows the median. A round in which other processes used more
than {QUIET_SHARE:.0%} of the cores is taken again. The losses of all steps must agree."""
LOSS_TOLERANCE = 1e-4
AT_LEAST = {"compute-bound": 1 / 1.03, "small batch": 1 / 1.1, "overhead-bound": 1 / 1.1}
"""How many times as long eager has to take, at least, by what limits a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Sized):
    """A recipe at one size, and what limits its steps."""

    kind: str


FULL = (
    Case(recipe="gpt-mini", batch=8, sequence=256, steps=2, kind="compute-bound"),
    Case(recipe="gpt-mini", batch=1, sequence=64, steps=8, kind="small batch"),
    Case(recipe="gpt-tiny", batch=1, sequence=16, steps=100, kind="overhead-bound"),
)
QUICK = (Case(recipe="gpt-tiny", batch=1, sequence=16, steps=5, kind="overhead-bound"),)


def measure(*, quick: bool = False) -> Section:
    """Every case, each eager against generated code and against a node of one chip."""
    rounds = 3 if quick else 9
    notes: list[str] = []
    with torch_threads(1):
        rows = [row for case in (QUICK if quick else FULL) for row in _rows(case, rounds, notes)]
    cases = [asdict(case) for case in (QUICK if quick else FULL)]
    return Section(
        theme="one-chip",
        title="One chip: the captured step beside eager",
        how=HOW,
        recipe={"cases": cases, "rounds": rounds, "threads": 1, "training": _training(cases)},
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _training(cases: list[dict[str, object]]) -> dict[str, str]:
    return {str(case["recipe"]): str(recipe(str(case["recipe"])).training) for case in cases}


class InProcess:
    """A captured step as generated code on plain tensors, its state in two copies as on a chip."""

    def __init__(self, job: Job) -> None:
        self._captured = capture(job.step, job.model, job.optimizer, job.inputs)
        self._step = generate(self._captured.program)
        program, state = self._captured.program, self._captured.inputs()
        self._ports = [port.name for port in program.inputs]
        self._state = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }
        pairs = enumerate(program.updates)
        self._changed = {i: self._ports[port] for i, port in pairs if port is not None}
        self._spare = {
            i: torch.empty_like(value)
            for i in self._step.destinations
            if isinstance(value := state[self._changed[i]], Tensor)
        }

    def __call__(self, *batch: Tensor) -> Tensor:
        captured, count = self._captured, len(self._captured.program.updates)
        named = {**self._state, **captured.bind(*batch), **captured.host_values()}
        out = [self._spare.get(i) for i in range(count)]
        outputs = self._step([named[name] for name in self._ports], out)
        for i, name in self._changed.items():
            old, self._state[name] = self._state[name], outputs[i]
            if i in self._spare and isinstance(old, Tensor):
                self._spare[i] = old
        captured.after_step()
        return captured.result([outputs[i] for i in range(count) if i not in self._changed])


def _rows(case: Case, rounds: int, notes: list[str]) -> list[Row]:
    jobs = [recipe(case.recipe).build(case.batch, sequence=case.sequence) for _ in range(3)]
    eager, inside, on_node = jobs
    with sn.connect("local:1") as node:
        step = node.compile(on_node.step, on_node.model, on_node.optimizer)
        sides = {
            "eager": TrainSteps(eager, eager.step, case.steps),
            "generated": TrainSteps(inside, InProcess(inside), case.steps),
            "node": TrainSteps(on_node, step, case.steps),
        }
        for side in sides.values():  # the first round captures, compiles and touches memory
            side()
        kept, taken = quiet_rounds(sides, rounds)
    times = by_side([each.times for each in kept])
    for side in sides.values():
        torch.testing.assert_close(
            side.losses, sides["eager"].losses, rtol=LOSS_TOLERANCE, atol=0.0
        )
    size = f"{case.size}, {case.kind}"
    notes.append(f"{size}: {told(kept, taken)}")
    return [
        Row(
            what=f"{size}: eager / {name}",
            ours=times[key],
            theirs=times["eager"],
            at_least=AT_LEAST[case.kind],
            headline=f"train step on one chip against eager, {size}" if key == "node" else "",
        )
        for key, name in (("generated", "generated code in process"), ("node", "node of one chip"))
    ]
