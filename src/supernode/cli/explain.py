"""`supernode explain`: how a recipe lies on the chips, and what they send each other."""

import json
from typing import Annotated

import typer
from rich.console import Console

from supernode.cli.predict import (
    AsJson,
    Batch,
    Captures,
    Changes,
    Chips,
    Layout,
    Memory,
    Page,
    PhaseOf,
    Recipe,
    Request,
    Sequence,
    planned,
)
from supernode.cli.train import check_writable
from supernode.errors import InputError
from supernode.report import explanation, layouts_document, layouts_report


def explain(
    recipe: Recipe,
    layout: Layout = None,
    chips: Chips = None,
    on: Annotated[
        str | None, typer.Option(help="a machine: its chips and their memory choose the layout")
    ] = None,
    batch: Batch = None,
    sequence: Sequence = None,
    phase: PhaseOf = "train",
    changes: Changes = None,
    memory: Memory = None,
    html: Page = None,
    as_json: AsJson = False,
) -> None:
    """Show how each parameter and activation is laid out, and the bytes that each module sends.

    Example: supernode explain llama3-8b --layout fsdp=8,tp=8,sp --html layout.html
    """
    if html is not None:
        check_writable(html)
    if layout is None and chips is None and on is None:
        raise InputError(
            "without a layout it must be known for how many chips to choose one",
            asked=f"explain {recipe}",
            fix="give --layout fsdp=8, --chips 8 or --on cloudmatrix384",
        )
    request = Request(
        recipe=recipe,
        layout=layout,
        chips=chips,
        batch=batch,
        sequence=sequence,
        phase=phase,
        changes=tuple(changes or ()),
        memory_bytes=memory,
    )
    plan, _ = planned(request, Captures(request), None if on is None else request.on(on))
    explained = explanation(plan)
    if html is not None:
        from supernode.report.layout_page import layout_page

        html.write_text(layout_page(explained), encoding="utf-8")
    if as_json:
        print(json.dumps(layouts_document(explained)))
    else:
        Console().print(layouts_report(explained))
