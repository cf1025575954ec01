"""`supernode machines`: the catalogue, with where its numbers come from."""

import json
from typing import Annotated

import typer
from rich.console import Console

from supernode.machine import catalogue, load_machine
from supernode.report import machines_document, machines_report
from supernode.report.sources import sources_report


def machines(
    name: Annotated[
        str | None, typer.Argument(help="one machine in full: every number with its source")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """List the machines that can be simulated; a name (or a .toml file) shows its sources.

    Example: supernode machines cloudmatrix384
    """
    chosen = [load_machine(each) for each in ([name] if name else catalogue())]
    if as_json:
        print(json.dumps(machines_document(chosen)))
    elif name:
        Console().print(sources_report(chosen[0]))
    else:
        Console().print(machines_report(chosen))
