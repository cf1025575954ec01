"""Results as one HTML file that needs no network."""

from collections.abc import Iterable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from supernode.errors import InputError
from supernode.report.figures import (
    FONT,
    GRID,
    INK,
    QUIET,
    comparison_figure,
    memory_figure,
    timeline_figure,
)
from supernode.report.text import figures_of
from supernode.simulate import Simulation

_STYLE = f"""
body {{ margin: 0; background: #f4f5f8; color: {INK}; font: 15px/1.5 {FONT}; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }}
h1 {{ font-size: 26px; font-weight: 650; margin: 0; }}
h2 {{ font-size: 17px; font-weight: 600; margin: 0 0 4px; }}
p {{ color: {QUIET}; margin: 2px 0 0; }}
section {{ background: white; border: 1px solid {GRID}; border-radius: 10px;
  padding: 18px 20px; margin-top: 20px; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px;
  margin-top: 20px; }}
.tile {{ background: white; border: 1px solid {GRID}; border-radius: 10px; padding: 10px 14px; }}
.tile span {{ color: {QUIET}; font-size: 13px; display: block; }}
.tile b {{ font-size: 17px; font-weight: 600; }}
.bad {{ color: #b3261e; font-weight: 600; }}
"""

_SCRIPT = f"<script>{get_plotlyjs()}</script>"


def page(sims: Sequence[Simulation]) -> str:
    """The first simulation in full, then all of them side by side if there are several.

    Raises:
        InputError: there is no simulation.
    """
    if not sims:
        raise InputError("a page needs at least one simulation")
    first = sims[0]
    sections = [_timeline(first)] if first.fits else []
    sections.append(_memory(first))
    if len(sims) > 1:
        body = _figure(comparison_figure(sims), "comparison")
        sections.append(_section("Machines side by side", "The same step on each.", body))
    return _html(first, [*map(_verdict, sims), _tiles(first), _SCRIPT, *sections])


def _timeline(sim: Simulation) -> str:
    about = "What a chip computes and sends. Drag to zoom, double-click to go back."
    return _section("One step", about, _figure(timeline_figure(sim.trace), "timeline"))


def _memory(sim: Simulation) -> str:
    about = "Of one chip: parameters, optimizer state, activations, gradients and the rest."
    if not sim.fits:
        about = "What one chip would hold if it could."
    figure = memory_figure(sim.trace, sim.capacity_bytes)
    return _section("Memory over the step", about, _figure(figure, "memory"))


def _html(first: Simulation, parts: Iterable[str]) -> str:
    title = escape(f"{first.program} on {first.machine_title}")
    layout = escape(first.layout or "one chip")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n<p>{first.chips} chips, layout {layout}, simulated</p>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(sim: Simulation) -> str:
    if sim.fits:
        return ""
    needed, available = sim.memory.peak_bytes / 1e9, sim.capacity_bytes / 1e9
    text = f"does not fit: needs {needed:,.3g} GB of {available:,.3g} GB per chip"
    return f'<p class="bad">{escape(sim.machine)} {text}</p>'


def _tiles(sim: Simulation) -> str:
    tiles = (
        f'<div class="tile"><span>{escape(label)}</span><b>{escape(value)}</b></div>'
        for label, value in figures_of(sim)
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _section(title: str, about: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{body}</section>"


def _figure(figure: go.Figure, name: str) -> str:
    return figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
