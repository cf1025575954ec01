"""`supernode run`: trains a recipe for real on the chips of this host."""

import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from supernode.cli.saving import Saving
from supernode.errors import InputError
from supernode.partition import parse_line
from supernode.trace import MEMORY, Trace
from supernode.units import format_bytes, parse_bytes

MemoryLimit = Annotated[
    float | None,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="e.g. 2GiB: what each chip may use; activations are computed again and values "
        "offloaded until it does, or the run is refused",
    ),
]

LINE_EVERY = 10
"""Without a terminal, progress is one line every so many steps."""


@dataclass(slots=True)
class Record:
    """What a training run did."""

    recipe: str
    chips: int
    layout: str
    tokens_per_step: int
    byte_entropy: float
    start: int = 0
    losses: list[float] = field(default_factory=list[float])
    step_s: list[float] = field(default_factory=list[float])
    sample: str = ""
    planned_bytes: int = 0
    measured_bytes: int = 0

    @property
    def tokens_per_s(self) -> float:
        """By the median step, the first one (which captures) apart."""
        times = sorted(self.step_s[1:] or self.step_s)
        return self.tokens_per_step / times[len(times) // 2] if times else 0.0

    def document(self) -> dict[str, Any]:
        """For --json. Losses in nats per token."""
        return {
            "recipe": self.recipe,
            "chips": self.chips,
            "layout": self.layout,
            "start": self.start,
            "steps": len(self.losses),
            "losses": self.losses,
            "byte_entropy": self.byte_entropy,
            "tokens_per_step": self.tokens_per_step,
            "tokens_per_s": self.tokens_per_s,
            "step_s": self.step_s,
            "planned_memory_bytes": self.planned_bytes,
            "measured_memory_bytes": self.measured_bytes,
            "sample": self.sample,
        }


def run(
    recipe: Annotated[str, typer.Argument(help="what to train, e.g. gpt-mini")],
    chips: Annotated[
        int | None, typer.Option(min=1, help="how many chips (default: every core is one)")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="how many train steps")] = 100,
    layout: Annotated[
        str | None, typer.Option(help="e.g. dp=2 or fsdp=2,tp=2,sp (default: split the batch)")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="sequences a step, over all chips (default: the recipe's)"),
    ] = None,
    memory: MemoryLimit = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="save into this folder: now and then, and at the end")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="steps between two checkpoints")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="how many checkpoints stay")] = 2,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the newest checkpoint, up to --steps")
    ] = False,
    sample: Annotated[int, typer.Option(min=0, help="tokens to write at the end")] = 200,
    trace: Annotated[
        Path | None, typer.Option(help="write the last step's timeline here (opens in Perfetto)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Train a recipe for real on the chips of this host.

    Example: supernode run gpt-mini --chips 2 --steps 100
    """
    from supernode.models import recipe as find_recipe

    found = find_recipe(recipe)
    if not found.trainable:
        raise InputError(
            f"{recipe} is a size without data, so it can be simulated but not trained",
            asked=f"run {recipe}",
            fix=f"supernode simulate {recipe} --on cloudmatrix384",
        )
    if trace is not None:
        check_writable(trace)
    if layout is not None:
        chips = chips_of(layout, chips)
    saving = None
    if checkpoint is not None:
        saving = Saving(folder=checkpoint, every=every, keep=keep, resume=resume)
        saving.check()
    elif resume:
        raise InputError("--resume goes on from a checkpoint", fix="add --checkpoint FOLDER")
    record = _train(found, chips, steps, layout, memory, batch, sample, trace, saving)
    if as_json:
        print(json.dumps(record.document()))
    else:
        _summary(record)


def _train(
    found: Any,
    chips: int | None,
    steps: int,
    layout: str | None,
    memory: float | None,
    batch: int | None,
    sample: int,
    trace: Path | None,
    saving: Saving | None,
) -> Record:
    from supernode.api import connect
    from supernode.models import byte_entropy, standard_library_text

    job = found.build(batch=batch)
    entropy = byte_entropy(standard_library_text())
    with connect("local" if chips is None else f"local:{chips}") as node:
        step = node.compile(
            job.step, job.model, job.optimizer, layout=layout, memory=memory, name=found.name
        )
        _say(f"capturing {found.name}, then loading {node.chips} chips")
        step.prepare(*job.inputs)
        start = saving.resumed(step, found.name, job.inputs, steps) if saving else 0
        batches = islice(job.batches(), start, None)
        record = Record(
            recipe=found.name,
            chips=node.chips,
            layout=step.plan.layout,
            tokens_per_step=job.tokens_per_step,
            byte_entropy=entropy,
            start=start,
            planned_bytes=step.plan.memory().peak_bytes,
        )
        with progress(steps, start) as shown:
            for number in range(start, steps):
                inputs = next(batches)
                start_s = time.perf_counter()
                goal = trace if number == steps - 1 else None
                if number == start:
                    loss, timeline = step.traced_memory(*inputs)
                    record.measured_bytes = _peak_bytes(timeline)
                elif goal is not None:
                    loss, timeline = step.traced(*inputs)
                else:
                    loss, timeline = step(*inputs), None
                if goal is not None and timeline is not None:
                    goal.write_text(timeline.to_chrome())
                record.step_s.append(time.perf_counter() - start_s)
                record.losses.append(float(loss))
                shown.update(record)
                if saving is not None:
                    saving.after(step, number + 1, steps)
        step.pull()
    record.sample = job.sample(sample) if sample else ""
    return record


def _peak_bytes(measured: Trace) -> int:
    """What the fullest chip held."""
    return int(max(measured.peak(MEMORY, chip) for chip in measured.chips))


class Shown(Protocol):
    """Something that shows how a run goes."""

    def update(self, record: Record) -> None:
        """One more step is done."""


@contextmanager
def progress(steps: int, start: int) -> Generator[Shown]:
    """A bar on a terminal, a line now and then elsewhere; both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(steps)
        return
    columns = (
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield _Bar(bar, steps, start)


class _Bar:
    def __init__(self, bar: Progress, steps: int, start: int) -> None:
        self._bar = bar
        self._task = bar.add_task("train", total=steps, completed=start, state="starting")

    def update(self, record: Record) -> None:
        self._bar.update(self._task, advance=1, state=_state(record))


class _Lines:
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def update(self, record: Record) -> None:
        done = record.start + len(record.losses)
        if done in (record.start + 1, self._steps) or done % LINE_EVERY == 0:
            _say(f"step {done}/{self._steps}  {_state(record)}")


def _state(record: Record) -> str:
    rate = record.tokens_per_step / record.step_s[-1]
    chips = "1 chip" if record.chips == 1 else f"{record.chips} chips"
    return f"loss {record.losses[-1]:.3f}  {rate:,.0f} tokens/s  {chips}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _summary(record: Record) -> None:
    chips = "1 chip" if record.chips == 1 else f"{record.chips} chips ({record.layout})"
    print(
        f"{record.recipe}: {len(record.losses)} steps on {chips}, "
        f"{record.tokens_per_s:,.0f} tokens/s\n"
        f"loss {record.losses[0]:.3f} -> {record.losses[-1]:.3f} nats per byte "
        f"(a single byte's entropy: {record.byte_entropy:.3f})\n"
        f"memory {format_bytes(record.measured_bytes)} on the fullest chip, "
        f"{format_bytes(record.planned_bytes)} planned"
    )
    if record.sample:
        print("\nthe trained model, back in one process, writes:")
        print("\n".join("    " + line for line in record.sample.splitlines()))


def chips_of(layout: str, chips: int | None) -> int:
    """The number of chips that `layout` is for; an error now rather than after they started."""
    return parse_line(layout, chips).chips


def check_writable(path: Path) -> None:
    """Raises InputError now rather than after the work if `path` can't be written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(
            f"{path} can't be written: "
            + ("it is a folder" if path.is_dir() else f"there is no folder {path.parent}"),
            fix="name a file in a folder that exists",
        )
