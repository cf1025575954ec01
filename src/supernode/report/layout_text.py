"""How a Plan lies and what it sends, as tables for a terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from supernode.ir import short_dtype
from supernode.plan import by_token, has_stretches, is_contiguous
from supernode.report.layouts import Explanation
from supernode.report.rows import Laid, held_bytes
from supernode.report.tables import counted, new_table, sized, spaced
from supernode.report.traffic import Traffic

STEP = "(step)"
"""Stands for what is outside of all modules."""

PHASES = ("forward", "backward", "optimizer")
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("parameter", ("param", "buffer")),
    ("optimizer state", ("state",)),
    ("input", ("arg", "constant")),
)


def layouts_report(explained: Explanation) -> RenderableType:
    """Parameters and activations with their layouts, what each module sends, and the totals."""
    head = Text(explained.program, style="bold")
    about = about_chips(explained)
    parts: list[RenderableType] = [Group(head, Text(about, style="dim"))]
    tables = [
        (label, [row for row in explained.stored if row.role in roles]) for label, roles in _KINDS
    ]
    reasons = _letters(row.reason for _, rows in tables for row in rows if _listed(row))
    parts += [_stored_table(label, rows, reasons) for label, rows in tables if rows]
    if reasons:
        parts.append(_notes(reasons))
    parts.append(Group(_activation_table(explained.activations), _legend(explained)))
    parts.append(_memory_table(explained))
    if explained.traffic:
        parts += [_traffic_table(explained.traffic), _total_table(explained)]
    return spaced(*parts)


def about_chips(explained: Explanation) -> str:
    """`4 chips, layout fsdp=2,tp=2`."""
    if not explained.layout:
        return "one chip"
    return f"{counted(explained.chips, 'chip')}, layout {explained.layout}"


def shape_text(row: Laid) -> str:
    """The whole shape with the axes that split each dim: `f32[256/tp, 64] sum(dp)`; then which
    stage has it and where it lives: `f32[64] pp@1 in host`."""
    dims = (
        f"{size}/{'*'.join(axes)}" if axes else str(size)
        for size, axes in zip(row.whole.shape, row.layout.dims, strict=True)
    )
    parts = "".join(f" {kind}({axis})" for axis, kind in row.layout.partial)
    return f"{short_dtype(row.whole.dtype)}[{', '.join(dims)}]{parts}{row.where}"


def _listed(row: Laid) -> bool:
    """State that lies as its parameter does goes without saying."""
    return row.role != "state" or row.strays


def _letters(reasons: Iterable[str]) -> Mapping[str, str]:
    """A letter for each reason: a, b, …, z, aa, ab, …"""
    found: dict[str, str] = {}
    for reason in dict.fromkeys(filter(None, reasons)):
        high, low = divmod(len(found), 26)
        found[reason] = (chr(96 + high) if high else "") + chr(97 + low)
    return found


def _notes(reasons: Mapping[str, str]) -> RenderableType:
    notes = Table.grid(padding=(0, 2, 0, 0))
    for reason, letter in reasons.items():
        notes.add_row(letter, Text(reason))
    return notes


def _stored_table(label: str, rows: Sequence[Laid], reasons: Mapping[str, str]) -> Table:
    """A heading for each name, below it how many there are and how they lie."""
    table = _new_table(label, "piece", "per chip", "why")
    for row in rows:
        if _listed(row):
            many = f"{row.count} x " if row.count > 1 else ""
            piece, held = str(list(row.piece.shape)), sized(row.bytes_per_chip)
            table.add_row(Text(row.name, style="bold"))
            why = reasons.get(row.reason, "")
            table.add_row(Text(f"  {many}{shape_text(row)}"), Text(piece), held, why)
    if not all(map(_listed, rows)):
        table.add_row(
            Text("the rest as its parameters" if table.row_count else "as its parameters")
        )
    label = "all in its memory" if any(row.layout.place for row in rows) else "all"
    if any(row.layout.only for row in rows):
        label += ", where most is"
    table.add_row(label, "", sized(held_bytes(rows)), "", style="bold")
    return table


def _activation_table(rows: Iterable[Laid]) -> Table:
    table = _new_table("made in the forward phase by", "n", "split", "a piece")
    for _, of_module in groupby(rows, key=lambda row: row.name):
        for i, row in enumerate(_by_layout(of_module)):
            name = "" if i else row.name or STEP
            held = sized(row.piece.size_bytes)
            table.add_row(Text(name), str(row.count), Text(shape_text(row)), held)
    return table


def made_of(explained: Explanation) -> str:
    """Of which part of the batch activations are, where layouts do not say it."""
    stages = any(row.layout.only for row in explained.activations)
    return " of a microbatch" if stages else ""


def _legend(explained: Explanation) -> Text:
    rows = explained.activations
    signs = ["8/dp: a dim of 8, split over dp"]
    signs += [f"8/{axis}: one part of it after another" for axis, _ in explained.time]
    cuts = [each for row in rows for dim in row.layout.dims for each in dim]
    if any(not is_contiguous(each) and not has_stretches((each,)) for each in cuts):
        signs.append("8/cp:2: each half of it is split over cp")
    if has_stretches(tuple(cuts)):
        signs.append("8/tp:2+1+1: so are three stretches of it, of 4, 2 and 2, over tp")
    if any(by_token(each) != each for each in cuts):
        signs.append("8/ep~: rows are where their experts are, 8 if evenly")
    signs.append("sum(tp): the parts along tp are yet to be added up")
    signs.append(f"n: how many a step makes{made_of(explained)}")
    return Text("; ".join(signs), style="dim")


def _by_layout(rows: Iterable[Laid]) -> Iterator[Laid]:
    """The first, and so the largest, of each layout."""
    seen: set[object] = set()
    for row in rows:
        if row.layout not in seen:
            seen.add(row.layout)
            yield row


def _memory_table(explained: Explanation) -> Table:
    """What the fullest chip holds at its peak: of two executors, which treat state otherwise."""
    uses = (explained.in_place, explained.by_run)
    table = new_table("memory per chip", "in place", "by run")
    for part in explained.by_run.parts:
        held = [use.parts.get(part, 0) for use in uses]
        if any(held):
            table.add_row(f"  {part}", *(sized(n) if n else "" for n in held))
    table.add_row("peak", *(sized(use.peak_bytes) for use in uses), style="bold")
    return table


def _new_table(first: str, *columns: str) -> Table:
    table = new_table(first, *columns)
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    for column in table.columns:
        if column.header in ("split", "piece", "why"):
            column.justify = "left"
    return table


def _traffic_table(rows: Iterable[Traffic]) -> Table:
    """A heading for each module, below it a line for each axis and collective."""
    table = _new_table("each chip sends for", "calls", *PHASES)
    for module, of_module in groupby(rows, key=lambda row: row.module):
        table.add_row(Text(module or STEP, style="bold"))
        lines: dict[tuple[str, str], list[Traffic]] = {}
        for row in of_module:
            lines.setdefault((row.axis, row.collective), []).append(row)
        for (axis, collective), same in lines.items():
            sent = {phase: sum(r.sent_bytes for r in same if r.phase == phase) for phase in PHASES}
            cells = (sized(sent[phase]) if sent[phase] else "" for phase in PHASES)
            calls = str(sum(row.calls for row in same))
            table.add_row(f"  {axis} {collective}", calls, *cells)
    return table


def _total_table(explained: Explanation) -> Table:
    table = new_table("in all, in a step", "chips", "calls", "sent per chip", "share")
    for total in explained.totals:
        table.add_row(
            f"{total.axis} {total.collective}",
            str(total.size),
            str(total.calls),
            sized(total.sent_bytes),
            f"{total.sent_bytes / explained.sent_bytes:.1%}",
        )
    calls = str(sum(total.calls for total in explained.totals))
    table.add_row("", "", calls, sized(explained.sent_bytes), "", style="bold")
    return table
