"""`python -m bench [THEME…]`: measures, prints a table and writes a report for each theme.

The exit status is 1 if something failed to run; a ratio that misses what is wanted is marked in
the report and is no failure. `--readme` copies the newest reports' headlines into the README.
"""

import argparse
import datetime
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import fabric, gpu, offload, one_chip, planning, training, triton_cpu
from bench.host import Watch
from bench.readme import headlines, newest, updated
from bench.report import REPORTS, write
from bench.result import Section

THEMES: dict[str, Callable[..., Section]] = {
    "training": training.measure,
    "one-chip": one_chip.measure,
    "offload": offload.measure,
    "fabric": fabric.measure,
    "planning": planning.measure,
    "triton-cpu": triton_cpu.measure,
    "gpu": gpu.measure,
}
README = REPORTS.parent.parent / "README.md"


def main(argv: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("themes", nargs="*", metavar="THEME", help=f"of {', '.join(THEMES)}")
    parser.add_argument("--quick", action="store_true", help="smallest sizes; writes no report")
    parser.add_argument("--readme", action="store_true", help="only rewrite the README's table")
    asked = parser.parse_args(argv)
    unknown = [theme for theme in asked.themes if theme not in THEMES]
    if unknown:
        parser.error(f"no theme {', '.join(unknown)}; there are {', '.join(THEMES)}")
    if asked.readme:
        write_readme(README, REPORTS)
        return 0
    done = [run(theme, quick=asked.quick) for theme in asked.themes or _measurable()]
    return 0 if all(done) else 1


def _measurable() -> list[str]:
    """The themes that this host can run; Triton comes with the extra `kernels`."""
    found = {
        "triton-cpu": importlib.util.find_spec("triton") is not None,
        "gpu": torch.cuda.is_available(),
    }
    return [theme for theme in THEMES if found.get(theme, True)]


def write_readme(readme: Path, reports: Path) -> None:
    """Rewrites the table between the README's marks from the newest report of each theme."""
    rows = headlines(newest(reports, THEMES))
    readme.write_text(updated(readme.read_text(encoding="utf-8"), rows), encoding="utf-8")


def run(theme: str, *, quick: bool) -> bool:
    """Measures, prints and reports one theme; whether it ran."""
    console, watch = Console(), Watch()
    date = datetime.date.today().isoformat()
    try:
        section = THEMES[theme](quick=quick)
    except Exception:
        console.print(f"[red]{theme} failed[/red]")
        traceback.print_exc()
        return False
    conditions = watch.conditions()
    console.print(as_table(section))
    console.print(str(conditions), style="dim")
    if not quick:
        console.print(f"wrote {write(section, REPORTS, date, conditions)}")
    return True


def as_table(section: Section) -> Table:
    """The rows for a terminal."""
    table = Table(title=section.title)
    for name in ("what", "result", "wanted", ""):
        table.add_column(name)
    for row in section.rows:
        mark = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[row.is_met]
        table.add_row(row.what, row.result, row.wanted, mark)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
