"""The figures that say why a step takes so long: its limits, the roofline, what is sent where."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from supernode.report.figures import COLOURS, INK, OTHER, QUIET, dress
from supernode.report.repeats import pattern_of
from supernode.simulate import Simulation
from supernode.trace import COMPUTE, Span
from supernode.units import GIGA, TERA, format_seconds, format_si

LEAST_SHARE = 1e-4
"""Ops that take less of the step than this are not drawn on the roofline."""
_LIMITS = {"compute": COLOURS["matmul"], "memory traffic": COLOURS["vector"], "bubble": "#d5d8df"}


def limits_figure(sim: Simulation, shares: Mapping[str, float]) -> go.Figure:
    """One bar, the whole step, cut by what limits it; `shares` sum to 1."""
    figure = go.Figure()
    for name, share in shares.items():
        figure.add_bar(
            name=f"{name.replace('_', '-')} {share:.1%}",
            orientation="h",
            y=["step "],
            x=[share],
            marker={"color": _LIMITS.get(name, COLOURS.get(name, OTHER)), "line": {"width": 0}},
            hovertemplate=f"{name}: {share:.1%}, {format_seconds(share * sim.step_s)}"
            "<extra></extra>",
        )
    dress(figure, height=130)
    figure.update_layout(barmode="stack", bargap=0.25, legend={"traceorder": "normal"})
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """All ops of one name, kind and module pattern: sums over one step of one chip.

    `bytes` are those moved to and from the chip's memory.
    """

    name: str
    module: str
    kind: str
    count: int
    time_s: float
    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes

    @property
    def flops_per_s(self) -> float:
        """The achieved rate."""
        return self.flops / self.time_s


def roofline_points(sim: Simulation) -> list[Point]:
    """What computes on the roofline: that with FLOP, bytes and a share worth drawing."""
    groups: dict[tuple[str, str, str], list[Span]] = {}
    first = min(sim.trace.chips, default=0)
    for span in sim.trace.spans:
        if span.chip == first and span.stream == COMPUTE and span.flops and span.bytes:
            groups.setdefault((span.name, pattern_of(span.module), span.kind), []).append(span)
    return [
        point
        for (name, module, kind), spans in groups.items()
        if (point := _point(name, module, kind, spans)).time_s > LEAST_SHARE * sim.step_s
    ]


def _point(name: str, module: str, kind: str, spans: list[Span]) -> Point:
    return Point(
        name=name,
        module=module,
        kind=kind,
        count=len(spans),
        time_s=math.fsum(span.duration_s for span in spans),
        flops=math.fsum(span.flops for span in spans),
        bytes=math.fsum(span.bytes for span in spans),
    )


def roofline_figure(sim: Simulation) -> go.Figure:
    """FLOP/s achieved over FLOP per byte, under the datasheet's roofs; areas are times."""
    points = roofline_points(sim)
    figure = go.Figure()
    for name, x, y in _roofs(sim, points):
        figure.add_scatter(
            x=x,
            y=[rate / TERA for rate in y],
            mode="lines",
            line={"color": INK if name == sim.dtype else QUIET, "width": 1.5},
            name=name,
            hovertemplate=f"{name}: {format_si(y[-1], 'FLOP/s')}<extra></extra>",
            showlegend=False,
        )
    most_s = max((point.time_s for point in points), default=1.0)
    for kind in sorted({point.kind for point in points}):
        chosen = [point for point in points if point.kind == kind]
        figure.add_scatter(
            name=kind,
            x=[point.intensity for point in chosen],
            y=[point.flops_per_s / TERA for point in chosen],
            mode="markers",
            marker={
                "color": COLOURS.get(kind, OTHER),
                "size": [max(5.0, 34 * math.sqrt(point.time_s / most_s)) for point in chosen],
                "opacity": 0.75,
                "line": {"width": 1, "color": "white"},
            },
            customdata=[_about(point, sim) for point in chosen],
            hovertemplate="%{customdata}<extra></extra>",
        )
    dress(figure, height=400)
    figure.update_xaxes(type="log", dtick=1, title="FLOP per byte of the chip's memory")
    figure.update_yaxes(type="log", dtick=1, title="TFLOP/s")
    return figure


def _about(point: Point, sim: Simulation) -> str:
    where = f"<br>{point.module}" if point.module else ""
    return (
        f"<b>{point.name}</b> × {point.count}{where}"
        f"<br>{point.time_s / sim.step_s:.1%} of the step, "
        f"{format_si(point.flops_per_s, 'FLOP/s')} at {point.intensity:.3g} FLOP/B"
    )


def _roofs(sim: Simulation, points: list[Point]) -> Iterator[tuple[str, list[float], list[float]]]:
    """Name, FLOP per byte and FLOP/s of each roof: the slope of the memory, then a flat peak."""
    bandwidth = _number(sim, "chip.memory.bandwidth_bytes_per_s")
    peaks = {sim.dtype: sim.peak_flops_per_s, "vector": _number(sim, "chip.vector_flops_per_s")}
    ridge = max(peaks.values()) / bandwidth
    ends = [point.intensity for point in points]
    low, high = min(ends, default=ridge) / 2, 2 * max([*ends, 2 * ridge])
    for name, peak in peaks.items():
        corner = peak / bandwidth
        yield name, [min(low, corner), corner, high], [min(low, corner) * bandwidth, peak, peak]


def _number(sim: Simulation, key: str) -> float:
    numbers = sim.trace.meta["machine_numbers"]
    assert isinstance(numbers, dict)
    number = numbers[key]
    assert isinstance(number, dict)
    value = number["value"]
    assert isinstance(value, int | float)
    return float(value)


def levels_figure(sim: Simulation) -> go.Figure:
    """What a chip sends in a step over each level of the machine, by collective."""
    levels = list(dict.fromkeys(level for level, _ in sim.sent_by_level))
    figure = go.Figure()
    for kind in dict.fromkeys(kind for _, kind in sim.sent_by_level):
        sent = [sim.sent_by_level.get((level, kind), 0.0) for level in levels]
        figure.add_bar(
            name=kind.replace("_", "-"),
            orientation="h",
            y=[f"{level} " for level in levels],
            x=[amount / GIGA for amount in sent],
            marker={"color": COLOURS.get(kind, OTHER), "line": {"width": 0}},
            customdata=[format_si(amount, "B") for amount in sent],
            hovertemplate=f"{kind} on %{{y}}: %{{customdata}}<extra></extra>",
        )
    dress(figure, height=120 + 40 * len(levels))
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(title="sent per chip and step (GB)")
    figure.update_yaxes(showgrid=False)
    return figure
