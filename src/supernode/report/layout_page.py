"""How a Plan lies and what it sends, as one HTML file that needs no network.

Each value is a strip: a box for each dim, cut and coloured by the axes that split it.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

import plotly.graph_objects as go

from supernode.ir import short_dtype
from supernode.plan.layout import cut_axis
from supernode.report.figures import BLUE, GRID, INK, QUIET, dress
from supernode.report.html import SCRIPT, document, figure, section, tiles
from supernode.report.layout_text import PHASES, STEP, about_chips, made_of
from supernode.report.layouts import Explanation
from supernode.report.rows import Laid, held_bytes
from supernode.report.tables import counted, sized
from supernode.report.traffic import Traffic

_COLOURS = (BLUE, "#d9772b", "#3d9970", "#8a5fb0", "#c9557d", "#9a7d0a")
MAX_CUTS = 8
"""A dim cut in more pieces than this is drawn with so many."""

_STYLE = f"""
.legend {{ display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 10px 0 4px; font-size: 13px; }}
.legend i {{ display: inline-block; width: 14px; height: 14px; border-radius: 3px;
  margin-right: 6px; vertical-align: -2px; }}
.row {{ display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 8fr) minmax(0, 3fr) 74px;
  gap: 4px 14px; align-items: center; padding: 6px 0; border-top: 1px solid {GRID};
  font-size: 13px; }}
.row.again {{ border-top: none; padding-top: 0; }}
.row.head {{ color: {QUIET}; border-top: none; }}
.name {{ overflow-wrap: anywhere; }}
.name em, .piece {{ color: {QUIET}; font-style: normal; }}
.bytes {{ text-align: right; white-space: nowrap; }}
.strip {{ display: flex; gap: 3px; align-items: center; min-width: 0; }}
.dim {{ border: 1px solid {GRID}; border-radius: 4px; background: #f4f5f8; min-width: 22px;
  overflow: hidden; text-align: center; }}
.dim b {{ display: block; font-weight: 500; padding: 0 4px 6px; white-space: nowrap; }}
.dim.cut b {{ color: white; text-shadow: 0 0 3px rgba(0, 0, 0, 0.45); }}
.sum {{ border: 1px dashed {INK}; border-radius: 4px; padding: 1px 5px; white-space: nowrap; }}
@media (max-width: 800px) {{
  main {{ padding: 20px 10px 40px; }}
  .row {{ grid-template-columns: minmax(0, 1fr) 92px 66px; }}
  .row .name {{ grid-column: 1 / -1; }}
  .row.head .name, .row.again .name:empty {{ display: none; }}
}}
"""


def layout_page(explained: Explanation) -> str:
    """The sums, what each module sends by axis, and a strip for each parameter and activation."""
    colours = axis_colours(explained)
    stored = [row for row in explained.stored if row.whole.shape and row.role != "state"]
    strays = [row for row in explained.stored if row.strays]
    parts = [tiles(_sums(explained)), SCRIPT]
    if explained.traffic:
        shown = figure(traffic_figure(explained), "traffic")
        about = "Each chip, in one step: what is added up for the module that made it, what is "
        about += "gathered for the module that first reads it. Hover for phase and collective."
        parts.append(section("What is sent", about, shown))
    legend = _legend(explained, colours)
    about = "One box a dim, as long as the dim is large, cut by the axes that split it; the "
    about += "bytes are those of one chip, all of that name together."
    parts.append(section("Parameters and inputs", about, legend + _strips(stored, colours)))
    if strays:
        about = "Only that which lies otherwise than its parameter."
        parts.append(section("Optimizer state", about, legend + _strips(strays, colours)))
    about = f"What the forward ops of each module make{made_of(explained)}; the bytes are those "
    about += "of one piece."
    made = _strips(explained.activations, colours, one_piece=True)
    parts.append(section("Activations", about, legend + made))
    return document(f"{explained.program}, laid out", about_chips(explained), parts, _STYLE)


def axis_colours(explained: Explanation) -> Mapping[str, str]:
    """A colour for each axis of the mesh, and of time."""
    axes = (*explained.mesh, *explained.time)
    return {axis: _COLOURS[i % len(_COLOURS)] for i, (axis, _) in enumerate(axes)}


def _sums(explained: Explanation) -> list[tuple[str, str]]:
    by_axis: dict[str, float] = {}
    for total in explained.totals:
        by_axis[total.axis] = by_axis.get(total.axis, 0.0) + total.sent_bytes
    held = {
        label: held_bytes(row for row in explained.stored if row.role in roles)
        for label, roles in (("parameters", ("param", "buffer")), ("optimizer state", ("state",)))
    }
    return [
        *((f"{label} on a chip", sized(size)) for label, size in held.items()),
        *((f"a chip sends along {axis}", sized(size)) for axis, size in by_axis.items()),
    ]


def traffic_figure(explained: Explanation) -> go.Figure:
    """A bar for each module that sends, in pieces by axis; the module that sends most on top."""
    colours = axis_colours(explained)
    by_module: dict[str, float] = {}
    for row in explained.traffic:
        by_module[row.module] = by_module.get(row.module, 0.0) + row.sent_bytes
    modules = sorted(by_module, key=lambda module: -by_module[module])
    shown = go.Figure()
    for axis, _ in explained.mesh:
        of_axis = {
            module: [row for row in explained.traffic if (row.module, row.axis) == (module, axis)]
            for module in modules
        }
        shown.add_bar(
            name=axis,
            orientation="h",
            y=[f"{module or STEP} " for module in modules],
            x=[sum(row.sent_bytes for row in of_axis[module]) for module in modules],
            customdata=[_hover(module, axis, of_axis[module]) for module in modules],
            marker={"color": colours[axis]},
            hovertemplate="%{customdata}<extra></extra>",
        )
    dress(shown, height=90 + 24 * len(modules))
    shown.update_layout(barmode="stack", bargap=0.25, showlegend=True, legend_traceorder="normal")
    shown.update_xaxes(title="sent per chip and step", ticksuffix="B", tickformat="~s")
    shown.update_yaxes(autorange="reversed", showgrid=False)
    return shown


def _hover(module: str, axis: str, rows: Iterable[Traffic]) -> str:
    lines = [
        f"{phase} {row.collective}: {sized(row.sent_bytes)} in {counted(row.calls, 'call')}"
        for phase in PHASES
        for row in rows
        if row.phase == phase
    ]
    return "<br>".join([f"<b>{escape(module or STEP)}</b> along {axis}", *lines])


def _legend(explained: Explanation, colours: Mapping[str, str]) -> str:
    every = [
        *((axis, f"{size} chips") for axis, size in explained.mesh),
        *((axis, f"{size} parts, one after another") for axis, size in explained.time),
    ]
    axes = (
        f'<span><i style="background: {colours[axis]}"></i>{escape(axis)} = {size}</span>'
        for axis, size in every
    )
    sums = any(row.layout.partial for row in explained.activations)
    added = '<span><span class="sum">sum(axis)</span> parts, yet to be added up</span>'
    return f'<div class="legend">{"".join(axes)}{added if sums else ""}</div>'


def _strips(rows: Iterable[Laid], colours: Mapping[str, str], *, one_piece: bool = False) -> str:
    head = '<div class="row head"><span class="name"></span><span>whole</span>'
    head += '<span class="piece">piece</span><span class="bytes">on a chip</span></div>'
    out = [head]
    for _, same in groupby(rows, key=lambda row: row.name):
        for i, row in enumerate(same):
            held = row.piece.size_bytes if one_piece else row.bytes_per_chip
            many = f" <em>× {row.count}</em>" if row.count > 1 else ""
            name = f"{escape(row.name or STEP)}{many}" if not i else f"<em>{many}</em>"
            out.append(
                f'<div class="row{" again" if i else ""}" title="{escape(row.reason)}">'
                f'<span class="name">{name}</span>{_strip(row, colours)}'
                f'<span class="piece">{_piece(row)}</span>'
                f'<span class="bytes">{sized(held)}</span></div>'
            )
    return "".join(out)


def _piece(row: Laid) -> str:
    return f"{short_dtype(row.piece.dtype)} {' × '.join(map(str, row.piece.shape))}"


def _strip(row: Laid, colours: Mapping[str, str]) -> str:
    dims = [
        _dim(size, row.piece.shape[i], [colours[cut_axis(each)] for each in row.layout.dims[i]])
        for i, size in enumerate(row.whole.shape)
    ]
    parts = [
        f'<span class="sum">{kind}({escape(axis)})</span>' for axis, kind in row.layout.partial
    ]
    where = f'<span class="sum">{escape(row.where)}</span>' if row.where else ""
    return f'<span class="strip">{"".join(dims or ["scalar"])}{"".join(parts)}{where}</span>'


def _dim(size: int, piece: int, colours: Sequence[str]) -> str:
    """A box whose length grows with the logarithm of the size."""
    grow = f"flex: {size.bit_length()} 1 0"
    if not colours:
        return f'<span class="dim" style="{grow}"><b>{size}</b></span>'
    share = 100 / len(colours)
    bands = ", ".join(
        f"{colour} {i * share:.0f}% {(i + 1) * share:.0f}%" for i, colour in enumerate(colours)
    )
    width = 100 / min(size // piece, MAX_CUTS)
    cuts = (
        f"repeating-linear-gradient(90deg, transparent 0 calc({width:.3f}% - 2px), "
        f"white calc({width:.3f}% - 2px) {width:.3f}%)"
    )
    # The cuts stand below the number, so that it can be read.
    ticks = f"{cuts} left bottom / calc(100% + 2px) 8px no-repeat"
    paint = f"background: {ticks}, linear-gradient(180deg, {bands})"
    return f'<span class="dim cut" style="{grow}; {paint}"><b>{size}</b></span>'
