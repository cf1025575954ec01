"""Results as one HTML file that needs no network."""

from collections.abc import Sequence
from html import escape

from supernode.errors import InputError
from supernode.report.figures import comparison_figure, memory_figure, timeline_figure
from supernode.report.html import SCRIPT, document, figure, section, tiles
from supernode.report.text import figures_of
from supernode.simulate import Simulation


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
        body = figure(comparison_figure(sims), "comparison")
        sections.append(section("Machines side by side", "The same step on each.", body))
    return document(
        f"{first.program} on {first.machine_title}",
        f"{first.chips} chips, layout {first.layout or 'one chip'}, simulated",
        [*map(_verdict, sims), tiles(figures_of(first)), SCRIPT, *sections],
    )


def _timeline(sim: Simulation) -> str:
    about = "What a chip computes and sends. Drag to zoom, double-click to go back."
    return section("One step", about, figure(timeline_figure(sim.trace), "timeline"))


def _memory(sim: Simulation) -> str:
    about = "Of one chip: parameters, optimizer state, activations, gradients and the rest."
    if not sim.fits:
        about = "What one chip would hold if it could."
    body = figure(memory_figure(sim.trace, sim.capacity_bytes), "memory")
    return section("Memory over the step", about, body)


def _verdict(sim: Simulation) -> str:
    if sim.fits:
        return ""
    needed, available = sim.memory.peak_bytes / 1e9, sim.capacity_bytes / 1e9
    text = f"does not fit: needs {needed:,.3g} GB of {available:,.3g} GB per chip"
    return f'<p class="bad">{escape(sim.machine)} {text}</p>'
