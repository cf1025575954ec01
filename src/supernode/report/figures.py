"""The figures of a page: the timeline of a step, memory over it, and machines side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from supernode.simulate import Simulation
from supernode.trace import MEMORY, STREAMS, Counter, Span, Trace
from supernode.units import GIGA, KILO, MILLI, PETA, format_seconds

INK, QUIET, GRID = "#1f2430", "#6b7280", "#e7e9ee"
FONT = "Inter, 'Helvetica Neue', Arial, sans-serif"
BLUE = "#3b6fb6"

COLOURS = {
    "matmul": BLUE,
    "vector": "#9bbbe0",
    "all_reduce": "#d9772b",
    "all_gather": "#e9b44c",
    "reduce_scatter": "#b6532f",
    "all_to_all": "#c9557d",
    "send": "#8a5fb0",
    "host": "#5f6775",
}
"""By what a span does."""
OTHER = "#9aa1ad"
MAX_BARS = 1500
"""A screen has about so many columns: shorter spans are drawn together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """Neighbouring spans of one stream drawn as one; `kind` is that of most of their time."""

    kind: str
    row: str
    start_s: float
    end_s: float
    label: str


def timeline_figure(trace: Trace) -> go.Figure:
    """Both streams of every chip over time, coloured by what they do."""
    bars = [bar for chip in trace.chips for bar in _bars(trace, chip)]
    figure = go.Figure()
    for kind in sorted({bar.kind for bar in bars}, key=_legend_order):
        chosen = [bar for bar in bars if bar.kind == kind]
        figure.add_bar(
            name=kind.replace("_", "-"),
            orientation="h",
            y=[bar.row for bar in chosen],
            base=[bar.start_s / MILLI for bar in chosen],
            x=[(bar.end_s - bar.start_s) / MILLI for bar in chosen],
            marker={"color": COLOURS.get(kind, OTHER), "line": {"width": 0}},
            customdata=[bar.label for bar in chosen],
            hovertemplate="%{customdata}<extra></extra>",
        )
    rows = max(len({bar.row for bar in bars}), 1)
    dress(figure, height=130 + 46 * rows)
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_xaxes(title="time (ms)", range=[0, trace.end_s / MILLI or 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _legend_order(kind: str) -> tuple[int, str]:
    known = list(COLOURS)
    return (known.index(kind) if kind in known else len(known), kind)


def _bars(trace: Trace, chip: int) -> Iterator[_Bar]:
    for stream in STREAMS:
        row = f"{stream} " if len(trace.chips) == 1 else f"chip {chip} {stream} "
        spans = [s for s in trace.spans if s.chip == chip and s.stream == stream]
        for group in _groups(sorted(spans, key=lambda s: s.start_s), trace.end_s / MAX_BARS):
            yield _bar(group, row)


def _groups(spans: Iterable[Span], short_s: float) -> Iterator[list[Span]]:
    """Runs of spans that together are too short to be told apart, longer ones alone."""
    group: list[Span] = []
    for span in spans:
        if group and span.end_s - group[0].start_s > short_s:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _bar(group: list[Span], row: str) -> _Bar:
    time_s: dict[str, float] = {}
    for span in group:
        time_s[span.kind] = time_s.get(span.kind, 0.0) + span.duration_s
    first, last = group[0], group[-1]
    length = format_seconds(last.end_s - first.start_s)
    what = first.name if len(group) == 1 else f"{len(group)} ops, {first.name} …"
    where = " ".join(part for part in (first.module, first.phase) if part)
    return _Bar(
        kind=max(time_s, key=lambda kind: time_s[kind]),
        row=row,
        start_s=first.start_s,
        end_s=last.end_s,
        label=f"<b>{what}</b><br>{where}<br>{length}, from {format_seconds(first.start_s)}",
    )


def memory_figure(trace: Trace, capacity_bytes: float) -> go.Figure:
    """The memory in use over the step, on the fullest chip, under what a chip has."""
    chip = max(trace.chips, key=lambda chip: trace.peak(MEMORY, chip), default=0)
    counters = [c for c in trace.counters if c.name == MEMORY and c.chip == chip]
    shown = list(_highest(counters, trace.end_s / MAX_BARS))
    figure = go.Figure()
    figure.add_scatter(
        x=[at_s / MILLI for at_s, _ in shown],
        y=[value / GIGA for _, value in shown],
        mode="lines",
        line={"shape": "hv", "color": BLUE, "width": 1.5},
        fill="tozeroy",
        fillcolor="rgba(59, 111, 182, 0.15)",
        hovertemplate="%{y:.3g} GB at %{x:.3g} ms<extra></extra>",
        showlegend=False,
    )
    peak = max((value for _, value in shown), default=0.0)
    if peak > capacity_bytes / 5:
        figure.add_hline(
            y=capacity_bytes / GIGA,
            line={"color": "#b3261e", "dash": "dot", "width": 1.5},
            annotation={"text": "capacity", "font": {"color": "#b3261e"}},
            annotation_position="top left",
        )
    dress(figure, height=260)
    figure.update_xaxes(title="time (ms)", range=[0, trace.end_s / MILLI or 1])
    figure.update_yaxes(title="memory in use (GB)", rangemode="tozero")
    return figure


def _highest(counters: Iterable[Counter], short_s: float) -> Iterator[tuple[float, float]]:
    """The counters as points, of those too close to be told apart the highest."""
    last: tuple[float, float] | None = None
    for counter in counters:
        if last is None or counter.at_s - last[0] > short_s:
            if last is not None:
                yield last
            last = counter.at_s, counter.value
        else:
            last = last[0], max(last[1], counter.value)
    if last is not None:
        yield last


Measure = Callable[[Simulation], float | None]

_MEASURES: tuple[tuple[str, str, Measure], ...] = (
    ("step time (ms)", ",.4g", lambda sim: sim.step_s / MILLI),
    ("tokens/s per chip", ",.0f", lambda sim: sim.tokens_per_s_per_chip),
    ("achieved PFLOP/s", ",.3g", lambda sim: sim.achieved_flops_per_s / PETA),
    ("MFU", ".1%", lambda sim: sim.mfu),
    ("exposed comm", ".1%", lambda sim: sim.exposed_comm_s / sim.step_s),
    ("power (kW)", ",.3g", lambda sim: sim.power_w / KILO),
)


def comparison_figure(sims: Sequence[Simulation]) -> go.Figure:
    """A bar for each machine that holds the plan, by six measures."""
    sims = [sim for sim in sims if sim.fits and sim.step_s]
    figure = make_subplots(
        rows=2,
        cols=3,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.16,
        subplot_titles=[title for title, _, _ in _MEASURES],
    )
    for i, (_, style, measure) in enumerate(_MEASURES):
        values = [measure(sim) for sim in sims]
        most = max((value for value in values if value), default=1.0)
        figure.add_bar(
            row=i // 3 + 1,
            col=i % 3 + 1,
            orientation="h",
            y=[f"{sim.machine} " for sim in sims],
            x=values,
            text=["" if value is None else format(value, style) for value in values],
            textposition=["inside" if (v or 0.0) > most / 5 else "outside" for v in values],
            textangle=0,
            insidetextanchor="end",
            marker={"color": BLUE},
            hovertemplate="%{y}: %{text}<extra></extra>",
            showlegend=False,
        )
        figure.update_xaxes(row=i // 3 + 1, col=i % 3 + 1, range=[0, most])
    dress(figure, height=110 + 2 * 36 * max(len(sims), 2))
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(bargap=0.3)
    figure.update_annotations(font={"size": 14, "color": QUIET})
    return figure


def dress(figure: go.Figure, *, height: int) -> None:
    """Gives the figure the look of the pages, and a height in pixels."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        font={"family": FONT, "size": 13, "color": INK},
        plot_bgcolor="white",
        paper_bgcolor="white",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
