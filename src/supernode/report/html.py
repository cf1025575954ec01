"""What the pages share: the look, sections, figures, and one file that needs no network."""

from collections.abc import Iterable
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from supernode.report.figures import FONT, GRID, INK, QUIET

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
header {{ margin-top: 32px; }}
.rows {{ border-collapse: collapse; font-size: 14px; margin-top: 10px; }}
.rows caption {{ text-align: left; color: {QUIET}; padding-bottom: 4px; }}
.rows td {{ border-top: 1px solid {GRID}; padding: 4px 28px 4px 0; }}
.bad {{ color: #b3261e; font-weight: 600; }}
"""

SCRIPT = f"<script>{get_plotlyjs()}</script>"
"""What `figure` needs to stand before it."""


def document(title: str, about: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page: a head with `title` and `about`, both plain text, then `parts`, all HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n<p>{escape(about)}</p>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Numbers with their labels, each in a box."""
    boxes = (
        f'<div class="tile"><span>{escape(label)}</span><b>{escape(value)}</b></div>'
        for label, value in figures
    )
    return f'<div class="tiles">{"".join(boxes)}</div>'


def section(title: str, about: str, body: str) -> str:
    """A box with a heading, a line of plain text and HTML."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{body}</section>"


def rows(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A small table of plain text with a title; nothing if there are no pairs."""
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in pairs
    )
    return f'<table class="rows"><caption>{escape(title)}</caption>{lines}</table>' * bool(lines)


def figure(shown: go.Figure, name: str) -> str:
    """A figure that reacts to the mouse; `name` is its id on the page."""
    return shown.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displayModeBar": False, "responsive": True},
    )
