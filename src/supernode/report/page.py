"""Results as one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from html import escape

from supernode.errors import InputError
from supernode.report.figures import comparison_figure, memory_figure, timeline_figure
from supernode.report.html import SCRIPT, document, figure, rows, section, tiles
from supernode.report.limit_figures import levels_figure, limits_figure, roofline_figure
from supernode.report.tables import sized
from supernode.report.text import HELD_BESIDE, figures_of
from supernode.search import Change
from supernode.simulate import Simulation
from supernode.units import format_seconds


def page(
    sims: Sequence[Simulation],
    shares: Mapping[str, float] | None = None,
    changes: Sequence[Change] = (),
) -> str:
    """All simulations side by side if there are several, then the first of them in full.

    `shares` say what limits the first, `changes` what would make it faster, where they were asked.

    Raises:
        InputError: there is no simulation.
    """
    if not sims:
        raise InputError("a page needs at least one simulation")
    first = sims[0]
    parts = [tiles(figures_of(first))]
    if first.fits:
        parts += [_limits(first, shares, changes)] if shares else []
        parts += [_timeline(first), _roofline(first)]
        parts += [_levels(first)] if first.sent_by_level else []
    parts.append(_memory(first))
    laid_out = f"{first.chips} chips, layout {first.layout or 'one chip'}"
    if len(sims) == 1:
        title, about = f"{first.program} on {first.machine_title}", f"{laid_out}, simulated"
    else:
        title = f"{first.program} on {len(sims)} machines"
        about = f"{', '.join(sim.machine for sim in sims)}; simulated"
        body = figure(comparison_figure(sims), "comparison")
        side_by_side = section("Machines side by side", "The same step on each.", body)
        in_full = f"<h2>{escape(first.machine_title)} in full</h2><p>{escape(laid_out)}</p>"
        parts = [side_by_side, f"<header>{in_full}</header>", *parts]
    return document(title, about, [*map(_verdict, sims), SCRIPT, *parts])


def _timeline(sim: Simulation) -> str:
    about = "What a chip computes and sends. Drag to zoom, double-click to go back."
    return section("One step", about, figure(timeline_figure(sim.trace), "timeline"))


def _limits(sim: Simulation, shares: Mapping[str, float], changes: Sequence[Change]) -> str:
    about = "While a chip computes: arithmetic or memory, whichever is slower at the datasheet's "
    about += "rates; else what it waits for."
    faster = [
        (each.name, f"{each.gain:.1%} less, {format_seconds(each.step_s)}") for each in changes
    ]
    body = figure(limits_figure(sim, shares), "limits")
    return section("What limits the step", about, body + rows("what would be faster", faster))


def _roofline(sim: Simulation) -> str:
    about = "What computes, by op and module, under the datasheet's roofs; areas are times. Causal "
    about += "attention counts the scores it leaves out, as torch does, and may pass the roof."
    return section("Roofline", about, figure(roofline_figure(sim), "roofline"))


def _levels(sim: Simulation) -> str:
    about = "What one chip sends in a step, by the level of the machine that it crosses."
    return section("Communication by level", about, figure(levels_figure(sim), "levels"))


def _memory(sim: Simulation) -> str:
    about = "Of one chip: parameters, optimizer state, activations, gradients and the rest."
    if not sim.fits:
        about = "What one chip would hold if it could."
    held = [("tensors at the peak", sim.memory.peak_bytes)]
    held += [(label, found(sim)) for label, found in HELD_BESIDE]
    held.append(("capacity", sim.capacity_bytes))
    body = figure(memory_figure(sim.trace, sim.capacity_bytes), "memory")
    body += rows("of a chip", [(label, sized(size)) for label, size in held if size])
    return section("Memory over the step", about, body)


def _verdict(sim: Simulation) -> str:
    if sim.fits:
        return ""
    needed, available = sim.taken_bytes / 1e9, sim.capacity_bytes / 1e9
    text = f"does not fit: needs {needed:,.3g} GB of {available:,.3g} GB per chip"
    most = ", ".join(f"{module} {size / 1e9:,.3g} GB" for module, size in sim.memory.modules)
    return f'<p class="bad">{escape(sim.machine)} {text}</p><p>Most in {escape(most)}.</p>'
