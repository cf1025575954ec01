"""Results as tables for a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from supernode.machine import Machine
from supernode.report.peaks import peak_sentences
from supernode.report.tables import NONE, counted, new_table, sized, spaced
from supernode.search import Change
from supernode.simulate import Simulation
from supernode.units import GIGA, KILO, PETA, TERA, format_seconds, format_si

STEP_TIME = "step time"


def simulation_report(
    sim: Simulation, shares: Mapping[str, float] | None = None, changes: Sequence[Change] = ()
) -> RenderableType:
    """One plan on one machine: how fast, how full, and where the time goes.

    `shares` say what limits the step, `changes` what would make it faster.
    """
    head = Text(f"{sim.program} on {sim.machine_title}", style="bold")
    layout = sim.layout or "one chip"
    about = Text(f"{counted(sim.chips, 'chip')}, layout {layout}", style="dim")
    if not sim.fits:
        return spaced(Group(head, about), _verdict(sim), _memory_table([sim]))
    table = new_table("one step", sim.machine)
    for label, cell in _ROWS:
        table.add_row(label, cell(sim))
    parts = [Group(head, about), table, _causes(sim), _memory_table([sim])]
    if any(sim.doubts.values()):
        parts.append(_doubts(sim))
    if shares:
        parts.append(_limits(sim, shares))
    if changes:
        parts.append(_changes(changes))
    return spaced(*parts)


def comparison_report(
    sims: Sequence[Simulation], machines: Sequence[Machine] = ()
) -> RenderableType:
    """One plan a machine, side by side; what does not fit shows what it needs, and no times.

    Of `machines` it is said how their peaks compare, and by which source.
    """
    table = new_table("one step", *(sim.machine for sim in sims))
    table.add_row("chips", *(str(sim.chips) for sim in sims))
    table.add_row("layout", *(sim.layout or "one chip" for sim in sims))
    for label, cell in _ROWS:
        missing = "does not fit" if label == STEP_TIME else NONE
        table.add_row(label, *(cell(sim) if sim.fits else missing for sim in sims))
    verdicts = [_verdict(sim) for sim in sims if not sim.fits]
    head = Text(sims[0].program, style="bold")
    peaks = [Group(*map(Text, peak_sentences(machines)))] if machines else []
    return spaced(head, table, _memory_table(sims), *verdicts, *peaks)


def machines_report(machines: Iterable[Machine]) -> RenderableType:
    """The machines, one a row: totals, but for the links, per chip and in one direction."""
    columns = ("chips", "PF/s", "TB", "TB/s", "up GB/s", "out GB/s", "kW", "guess")
    table = new_table("machine", *columns)
    legend = Text(
        "PF/s: dense bfloat16 PFLOP/s; TB, TB/s: memory of all chips; up, out: scale-up and "
        "scale-out links, per chip, one direction; guess: share of the numbers without a "
        "published source",
        style="dim",
    )
    others: set[str] = set()
    for machine in machines:
        row = machine.summary()
        scale_out = row["scale_out_bytes_per_s"]
        others |= {row["bf16_dtype"]} - {"bfloat16"}
        table.add_row(
            row["name"],
            str(row["chips"]),
            f"{row['bf16_flops_per_s'] / PETA:.4g}" + _mark(row["bf16_dtype"]),
            f"{row['memory_bytes'] / TERA:.3g}",
            f"{row['memory_bandwidth_bytes_per_s'] / TERA:,.4g}",
            f"{row['scale_up_bytes_per_s'] / GIGA:.4g}",
            NONE if scale_out is None else f"{scale_out / GIGA:.4g}",
            f"{row['power_w'] / KILO:.4g}",
            f"{row['guessed']['share']:.0%}",
        )
    notes = [Text(f"{_mark(dtype).strip()} in {dtype}: no bfloat16") for dtype in sorted(others)]
    return spaced(table, Group(legend, *notes))


def _mark(dtype: str) -> str:
    return {"bfloat16": "", "float16": "*"}.get(dtype, "**")


def _tokens(rate: float | None) -> str:
    if rate is None:
        return NONE
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _range(sim: Simulation) -> str:
    """`4.11–6.79 ms`, the unit once where it is the same."""
    low, high = (format_seconds(time_s) for time_s in sim.range_s)
    number, _, unit = low.partition(" ")
    return f"{number}–{high}" if high.endswith(f" {unit}") else f"{low}–{high}"


def _widest(sim: Simulation) -> str:
    """What widens the range most."""
    return next((doubt.reason for doubt in sim.doubts), NONE)


def _exposed(sim: Simulation) -> str:
    return f"{sim.exposed_comm_s / sim.step_s if sim.step_s else 0.0:.1%} of step"


_ROWS: tuple[tuple[str, Callable[[Simulation], str]], ...] = (
    (STEP_TIME, lambda sim: format_seconds(sim.step_s)),
    ("in four of five", _range),
    ("widest doubt", _widest),
    ("tokens/s", lambda sim: _tokens(sim.tokens_per_s)),
    ("tokens/s per chip", lambda sim: _tokens(sim.tokens_per_s_per_chip)),
    ("achieved", lambda sim: format_si(sim.achieved_flops_per_s, "FLOP/s")),
    ("matmuls in", lambda sim: sim.dtype),
    ("peak of a chip", lambda sim: format_si(sim.peak_flops_per_s, "FLOP/s")),
    ("MFU", lambda sim: f"{sim.mfu:.1%}"),
    ("exposed comm", _exposed),
    ("power, all in", lambda sim: f"{sim.power_w / KILO:,.3g} kW"),
    ("tokens/J", lambda sim: _tokens(sim.tokens_per_joule)),
    ("rests on guesses", lambda sim: f"{sim.guessed_share:.1%}"),
)


HELD_BESIDE: tuple[tuple[str, Callable[[Simulation], float]], ...] = (
    ("allocator reserves", lambda sim: sim.reserved_bytes),
    ("driver, collectives", lambda sim: sim.outside_bytes),
)
"""What software takes of a chip: for tensors, and beside them."""


def figures_of(sim: Simulation) -> list[tuple[str, str]]:
    """The main figures with their labels; without those that rest on time if it does not fit."""
    memory = f"{sized(sim.taken_bytes)} of {sized(sim.capacity_bytes)}"
    if not sim.fits:
        return [("memory per chip", memory)]
    timed = [(label, cell(sim)) for label, cell in _ROWS]
    most = max(sim.critical_s, key=lambda name: sim.critical_s[name], default=NONE)
    return [*timed, ("memory per chip", memory), ("waits most for", most)]


def _causes(sim: Simulation) -> Table:
    table = new_table("the step waits for", "time", "share", "sent per chip")
    for name, time_s in sorted(sim.critical_s.items(), key=lambda item: (-item[1], item[0])):
        sent = sim.sent_bytes.get(name)
        share = f"{time_s / sim.step_s:.1%}"
        table.add_row(name, format_seconds(time_s), share, sized(sent) if sent else "")
    return table


def _doubts(sim: Simulation) -> Table:
    table = new_table("the range allows for", "off by", "of the step")
    whole_s = max(sim.doubts.values(), default=0.0)
    for doubt, part_s in sim.doubts.items():
        table.add_row(doubt.reason, f"±{doubt.spread:.0%}", f"{part_s / whole_s:.1%}")
    return table


def _limits(sim: Simulation, shares: Mapping[str, float]) -> Table:
    table = new_table("the step is limited by", "share", "time")
    for name, share in shares.items():
        table.add_row(name, f"{share:.1%}", format_seconds(share * sim.step_s))
    return table


def _changes(changes: Sequence[Change]) -> Table:
    table = new_table("what would be faster", "saves", "step time")
    for change in changes:
        table.add_row(change.name, f"{change.gain:.1%}", format_seconds(change.step_s))
    return table


def _memory_table(sims: Sequence[Simulation]) -> Table:
    table = new_table("memory per chip", *(sim.machine for sim in sims))
    for part in sims[0].memory.parts:
        table.add_row(f"  {part}", *(sized(sim.memory.parts[part]) for sim in sims))
    peaks = (Text(sized(s.memory.peak_bytes), style="" if s.fits else "red") for s in sims)
    table.add_row("peak", *peaks, style="bold")
    for label, held in HELD_BESIDE:
        sizes = [held(sim) for sim in sims]
        if any(sizes):
            table.add_row(label, *map(sized, sizes))
    table.add_row("capacity", *(sized(sim.capacity_bytes) for sim in sims))
    return table


def _verdict(sim: Simulation) -> Text:
    needed, available = sized(sim.taken_bytes), sized(sim.capacity_bytes)
    holders = ", ".join(f"{module} {sized(held)}" for module, held in sim.memory.modules[:3])
    wrong = f"{sim.machine}: does not fit, needs {needed} of {available} per chip\n"
    way_out = "a smaller --batch or --sequence, more chips, or a layout with tp and sp needs less"
    return Text(wrong, style="red").append(f"  most in {holders}\n  {way_out}", style="dim")
