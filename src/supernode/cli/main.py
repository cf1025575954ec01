"""The entry point: one clear message and exit code 2 for bad input, never a traceback."""

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from supernode import __version__
from supernode.cli import accuracy, calibrate, explain, machines, predict, train
from supernode.errors import ChipFailed, SupernodeError

BAD_INPUT, CHIP_FAILED, STOPPED = 2, 1, 130
MANY = ("--on", "--set", "--without")
"""The options that take several words."""

app = typer.Typer(
    name="supernode",
    help="Many AI chips, one computer: run a step written for one chip on all of them, and see "
    "it on machines you don't have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(train.run)
app.command("simulate")(predict.simulate)
app.command("compare")(predict.compare)
app.command("explain")(explain.explain)
app.command("machines")(machines.machines)
app.command("accuracy")(accuracy.accuracy)
app.command("calibrate")(calibrate.calibrate)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"supernode {__version__}")
        raise typer.Exit


@app.callback()
def supernode(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Many AI chips, one computer."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the locale has no µ or –
    sys.exit(call(sys.argv[1:] if argv is None else argv))


def call(argv: Sequence[str]) -> int:
    """Runs the command line; gives the exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app(spread_options(argv), prog_name="supernode")
    except SystemExit as end:
        if end.code == STOPPED:
            console.print("stopped by Ctrl-C")
        return end.code if isinstance(end.code, int) else 0
    except SupernodeError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        return CHIP_FAILED if isinstance(error, ChipFailed) else BAD_INPUT
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone.
        sys.stderr.close()
        return CHIP_FAILED
    return 0


def spread_options(argv: Sequence[str]) -> list[str]:
    """`--on a b c` as `--on a --on b --on c`, which is what the parser reads; `--set` alike.

    >>> spread_options(["compare", "llama3-8b", "--on", "hgx-h20", "dgx-v100", "--json"])
    ['compare', 'llama3-8b', '--on', 'hgx-h20', '--on', 'dgx-v100', '--json']
    """
    out: list[str] = []
    many = ""
    for word in argv:
        if word.startswith("-"):
            many = word if word in MANY else ""
            out.append(word)
            continue
        if many and out[-1] != many:
            out.append(many)
        out.append(word)
    return out
