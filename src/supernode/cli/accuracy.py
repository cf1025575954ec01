"""`supernode accuracy`: predictions against published measurements."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from supernode.cli.train import check_writable


def accuracy(
    truth: Annotated[
        Path | None, typer.Option(help="a folder with rows (default: those of supernode)")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="rows whose id or source starts so, e.g. lf- or CM384")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="how many processes predict")] = 2,
    minutes: Annotated[
        float | None, typer.Option(help="begin no capture after so many (default: all rows)")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="write the page here (and its plot beside it, .svg)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Predict published measurements, each in its published layout, and show how far off it is.

    Example: supernode accuracy --only nccl-h100
    """
    from supernode.accuracy import DATA, judge, load_truth
    from supernode.accuracy.document import document
    from supernode.accuracy.kept import cache_folder
    from supernode.accuracy.page import page, plot
    from supernode.accuracy.text import accuracy_report

    if write is not None:
        check_writable(write)
    rows = [row for row in load_truth(truth or DATA) if _wanted(row.id, row.source, only)]
    found = judge(rows, processes=processes, cache=cache_folder(), minutes=minutes, say=_say)
    if write is not None:
        write.write_text(page(found, datetime.now(UTC).date().isoformat()), encoding="utf-8")
        write.with_suffix(".svg").write_text(plot(found), encoding="utf-8")
    if as_json:
        print(json.dumps(document(found)))
    else:
        Console().print(accuracy_report(found))


def _wanted(id_: str, source: str, only: str | None) -> bool:
    return only is None or id_.startswith(only) or source.startswith(only)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
