"""`supernode simulate` and `supernode compare`: a recipe on machines you don't have."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from supernode.cli.train import check_writable, chips_of
from supernode.errors import InputError
from supernode.ir import Program, from_json, to_json
from supernode.machine import Machine, load_machine, what_if
from supernode.partition import parse_line, partition, partition_within
from supernode.plan import Plan
from supernode.report import (
    comparison_document,
    comparison_report,
    simulation_document,
    simulation_report,
)
from supernode.search import Change, best_changes, default_layout, usable_chips
from supernode.simulate import CostOf, Rehearsal, Simulation, Terms, cost_in, is_training, limits
from supernode.simulate import simulate as simulate_plan
from supernode.units import parse_bytes

Recipe = Annotated[
    str, typer.Argument(help="a recipe (llama3-8b), or a Program saved with --save-program (.json)")
]
Layout = Annotated[
    str | None,
    typer.Option(help="e.g. fsdp=8,tp=8,dp=6 (default: split the batch, shard if large)"),
]
Chips = Annotated[int | None, typer.Option(min=1, help="use so many chips (default: all)")]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="sequences a step, over all chips (default: the recipe's)"),
]
Sequence = Annotated[
    int | None, typer.Option(min=1, help="tokens a sequence (default: the recipe's)")
]
PhaseOf = Annotated[
    str, typer.Option(help="train, prefill or decode (--sequence tokens are in the cache)")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="another shape of the recipe's family, e.g. layers=40 hidden=5120; or another number "
        "of the machine, e.g. chip.memory.bandwidth=2x",
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        parser=parse_bytes,
        metavar="SIZE",
        help="e.g. 64GiB: compute activations again, then offload, until each chip needs no more",
    ),
]
PrecisionOf = Annotated[
    str, typer.Option(help="what linear layers run in: fp8, int8, nvfp4 … (default: as captured)")
]
CacheOf = Annotated[
    str, typer.Option(help="what the cache of keys and values is in: fp8 (default: as captured)")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document")]
Without = Annotated[
    list[str] | None,
    typer.Option(
        help="terms that do not count: fusion graph host overlap interference jitter "
        "bubble prefetch imbalance"
    ),
]
TraceTo = Annotated[Path | None, typer.Option(help="write the timeline here (opens in Perfetto)")]
Page = Annotated[Path | None, typer.Option("--html", help="write a self-contained page here")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to capture and how to lay it out."""

    recipe: str
    layout: str | None
    chips: int | None
    batch: int | None
    sequence: int | None
    phase: str = "train"
    changes: tuple[str, ...] = ()
    memory_bytes: float | None = None
    precision: str = ""
    cache: str = ""
    without: tuple[str, ...] = ()

    def shape(self) -> dict[str, int]:
        """The changes to the recipe's shape.

        Raises:
            InputError: one is not NAME=NUMBER.
        """
        found: dict[str, int] = {}
        for change in self.changes:
            if _of_machine(change):
                continue
            name, _, value = change.partition("=")
            if not value.isdecimal():
                raise InputError(f"expected NAME=NUMBER, got {change!r}", asked=f"--set {change}")
            found[name.strip()] = int(value)
        return found

    def on(self, name: str) -> Machine:
        """The machine of that name, with the changes asked for.

        Raises:
            InputError, UnknownName: a change is no KEY=NUMBER or KEY=2x, or of no known number.
        """
        machine = load_machine(name)
        for change in filter(_of_machine, self.changes):
            machine = what_if(machine, change)
        return machine


def _of_machine(change: str) -> bool:
    """Numbers of a machine have dotted names, those of a shape do not."""
    return "." in change.partition("=")[0]


class Captures:
    """Programs by batch size, so that machines of one size share a capture."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._known: dict[int, tuple[Program, int | None]] = {}

    def program(self, chips: int) -> tuple[Program, int | None]:
        """The Program for so many chips, and the tokens a step handles."""
        request = self._request
        if request.recipe.endswith(".json"):
            return self._once(0, lambda: _saved(request.recipe))
        from supernode.models import recipe

        parts = parse_line(request.layout or "").parts
        batch = request.batch or recipe(request.recipe).batch_for(chips * parts)
        return self._once(batch, lambda: _captured(request, batch))

    def _once(
        self, key: int, make: Callable[[], tuple[Program, int | None]]
    ) -> tuple[Program, int | None]:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def simulate(
    recipe: Recipe,
    on: Annotated[str, typer.Option(help="a machine of the catalogue, or a .toml file")],
    layout: Layout = None,
    chips: Chips = None,
    batch: Batch = None,
    sequence: Sequence = None,
    phase: PhaseOf = "train",
    changes: Changes = None,
    without: Without = None,
    memory: Memory = None,
    precision: PrecisionOf = "",
    cache: CacheOf = "",
    trace: TraceTo = None,
    html: Page = None,
    save_program: Annotated[
        Path | None, typer.Option(help="write the captured Program here, for use without torch")
    ] = None,
    what_if: Annotated[
        bool, typer.Option(help="simulate other layouts and better machines, show what saves most")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Predict one step of a recipe on one machine.

    Example: supernode simulate llama3-8b --on cloudmatrix384 --layout dp=3,fsdp=128
    """
    for path in (trace, html, save_program):
        if path is not None:
            check_writable(path)
    request = Request(
        recipe=recipe,
        layout=layout,
        chips=chips,
        batch=batch,
        sequence=sequence,
        phase=phase,
        changes=tuple(changes or ()),
        without=tuple(without or ()),
        memory_bytes=memory,
        precision=precision,
        cache=cache,
    )
    captures, machine = Captures(request), request.on(on)
    plan, tokens = planned(request, captures, machine)
    terms = Terms().without(*request.without)
    rehearsal = Rehearsal(plan, _cost(request, plan))
    result = rehearsal.on(machine, tokens=tokens, terms=terms)
    if save_program is not None:
        save_program.write_text(to_json(captures.program(result.chips)[0]))
    if trace is not None:
        trace.write_text(result.trace.to_chrome())
    shares, better = _explained(rehearsal, machine, result, terms, what_if)
    if html is not None:
        html.write_text(_page([result], shares, better))
    if as_json:
        print(json.dumps(simulation_document(result, shares, better)))
    else:
        Console().print(simulation_report(result, shares, better))


def compare(
    recipe: Recipe,
    on: Annotated[list[str], typer.Option(help="machines: names of the catalogue or .toml files")],
    layout: Layout = None,
    chips: Chips = None,
    batch: Batch = None,
    sequence: Sequence = None,
    phase: PhaseOf = "train",
    changes: Changes = None,
    without: Without = None,
    memory: Memory = None,
    precision: PrecisionOf = "",
    cache: CacheOf = "",
    html: Page = None,
    as_json: AsJson = False,
) -> None:
    """Predict one step of a recipe on several machines, side by side.

    Example: supernode compare llama3-8b --on cloudmatrix384 gb200-nvl72 hgx-h20
    """
    if html is not None:
        check_writable(html)
    request = Request(
        recipe=recipe,
        layout=layout,
        chips=chips,
        batch=batch,
        sequence=sequence,
        phase=phase,
        changes=tuple(changes or ()),
        without=tuple(without or ()),
        memory_bytes=memory,
        precision=precision,
        cache=cache,
    )
    captures = Captures(request)
    targets = [request.on(name) for name in on]
    results = [_predict(request, captures, target) for target in targets]
    if html is not None:
        first = results[0]
        html.write_text(_page(results, limits(first, targets[0]) if first.fits else {}))
    if as_json:
        print(json.dumps(comparison_document(results, targets)))
    else:
        Console().print(comparison_report(results, targets))


def planned(
    request: Request, captures: Captures, machine: Machine | None
) -> tuple[Plan, int | None]:
    """The Plan of a request, and the tokens a step handles; a machine says how many chips there
    are and what they hold.

    Raises:
        LayoutError: the layout does not fit the program, or the chips the machine.
    """
    chips = request.chips or (machine.chips if machine else 1)
    if request.layout is not None:
        chips = chips_of(request.layout, request.chips)
    if machine is not None:
        machine.level_spanning(chips)
    program, tokens = captures.program(chips)
    layout = request.layout
    if layout is None:
        if request.chips is None:
            chips = usable_chips(program, chips)
        capacity_bytes = machine.chip.memory.capacity_bytes.value if machine else math.inf
        layout = default_layout(program, chips, capacity_bytes)
    where = f"{chips} chips" + (f" of {machine.name}" if machine else "")
    _say(f"planning {program.name} for {where} ({layout or 'one chip'})")
    most = request.memory_bytes
    if most is None:
        return partition(program, layout, chips), tokens
    fits = partial(_is_within, request, machine, most) if machine else None
    return partition_within(program, layout, most, chips, with_software=fits), tokens


def _is_within(request: Request, machine: Machine, memory_bytes: float, plan: Plan) -> bool:
    """Whether what software takes of a chip, as a report says, is no more than that."""
    terms = Terms().without(*request.without)
    result = simulate_plan(plan, machine, cost=_cost(request, plan), terms=terms)
    return result.fits and result.taken_bytes <= memory_bytes


def _explained(
    rehearsal: Rehearsal, machine: Machine, result: Simulation, terms: Terms, what_if: bool
) -> tuple[dict[str, float], list[Change]]:
    """What limits a step that fits, and what would save most of it if that is asked."""
    if not result.fits:
        return {}, []
    better = best_changes(rehearsal, machine, result, terms=terms) if what_if else []
    return limits(result, machine), better


def _predict(request: Request, captures: Captures, machine: Machine) -> Simulation:
    plan, tokens = planned(request, captures, machine)
    cost, terms = _cost(request, plan), Terms().without(*request.without)
    return simulate_plan(plan, machine, tokens=tokens, cost=cost, terms=terms)


def _cost(request: Request, plan: Plan) -> CostOf:
    return cost_in(request.precision, request.cache, trains=is_training(plan.program))


def _page(
    results: list[Simulation], shares: Mapping[str, float], changes: list[Change] | None = None
) -> str:
    from supernode.report.page import page

    return page(results, shares, changes or [])


def _captured(request: Request, batch: int) -> tuple[Program, int | None]:
    from supernode.capture import capture
    from supernode.models import recipe

    found = recipe(request.recipe).with_shape(request.shape())
    _say(f"capturing {found.name} with {batch} sequences a step")
    job = found.build(batch=batch, device="meta", sequence=request.sequence, phase=request.phase)
    captured = capture(job.step, job.model, job.optimizer, job.inputs, name=found.name)
    return captured.program, job.tokens_per_step


def _saved(path: str) -> tuple[Program, int | None]:
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {path}", fix="name a recipe, or a saved Program")
    program = from_json(file.read_text())
    for port, value in zip(program.inputs, program.main.inputs, strict=True):
        if port.role == "arg":
            return program, value.tensor.numel if "int" in value.tensor.dtype else None
    return program, None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
