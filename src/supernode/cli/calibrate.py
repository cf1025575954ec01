"""`supernode calibrate`: this host as a machine file, and how well that predicts."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from supernode.cli.train import check_writable
from supernode.errors import InputError
from supernode.machine import Machine, load_machine, to_toml

if TYPE_CHECKING:
    from supernode.calibrate import Comparison

STEPS, QUICK_STEPS = 10, 3


def calibrate(
    chips: Annotated[
        int | None, typer.Option(min=1, help="how many chips (default: every core is one)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write the machine file here (default: named by the host)")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="measure no machine, but how well this file of a calibration predicts steps here"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="fewer sizes and repetitions: seconds, less exact")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Measure this host (products, attention, memory, links) and write it as a machine.

    Others who use the host make it seem slower: run it on an idle one. Example:
    supernode calibrate --out here.toml, then supernode calibrate --check here.toml
    """
    from supernode.calibrate.document import document
    from supernode.calibrate.text import comparison_report, machine_report

    comparisons: Sequence[Comparison] = ()
    if check is not None:
        if chips is not None or out is not None:
            raise InputError("--check measures no machine", fix="leave out --chips and --out")
        machine = load_machine(str(check))
        comparisons = _compared(machine, quick)
    else:
        machine = _measured(chips, out, quick)
    if as_json:
        print(json.dumps(document(machine, comparisons)))
    else:
        Console().print(comparison_report(comparisons) if check else machine_report(machine))


def _compared(machine: Machine, quick: bool) -> "Sequence[Comparison]":
    from supernode.calibrate import SUBJECTS, Hardware, compared

    cores = int(machine.chip.cores.value) if machine.chip.cores else 1
    here = Hardware.here()
    if here.model != machine.chip.name or cores * machine.chips > here.cores:
        raise InputError(
            f"{machine.name} is another machine: {machine.chips} x {machine.chip.name}",
            asked=f"compare it with {here.name}",
            fix="supernode calibrate writes a file for this host",
        )
    steps = QUICK_STEPS if quick else STEPS
    return compared(machine, SUBJECTS, steps=steps, say=_say)


def _measured(chips: int | None, out: Path | None, quick: bool) -> Machine:
    from supernode.calibrate import Hardware, calibrated, measured
    from supernode.run import connect

    hardware = Hardware.here()
    chips = hardware.cores if chips is None else chips
    threads = max(1, hardware.cores // chips)
    path = out or Path(f"{hardware.slug}-{chips}x{threads}.toml")
    _check_file(path)
    with connect(f"cpu:{chips}") as node:
        found = measured(node, threads=threads, quick=quick, say=_say)
    day, torch = datetime.now(UTC).date().isoformat(), metadata.version("torch")
    machine = calibrated(found, hardware, date=day, torch=torch, say=_say)
    write_whole(path, to_toml(machine))
    _say(f"written to {path}: supernode simulate gpt-mini --on {_as_argument(path)}")
    return machine


def _as_argument(path: Path) -> str:
    return str(path) if path.is_absolute() or len(path.parts) > 1 else f"./{path}"


def _check_file(path: Path) -> None:
    """Raises InputError now rather than after the measuring."""
    if path.suffix != ".toml":
        raise InputError(f"a machine file ends in .toml, not {path}", fix=f"--out {path.stem}.toml")
    check_writable(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} can't be written: it is no file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(
            f"{path} can't be written: no permission for {path.absolute().parent}",
            fix="name a file in a folder of yours",
        )


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there in full or not at all, whatever happens meanwhile.

    Raises:
        InputError: it can't be written; what was there still is.
    """
    part = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.absolute().parent, suffix=".part", delete=False
        ) as file:
            part = Path(file.name)
            file.write(text)
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path} can't be written: {error.strerror}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
