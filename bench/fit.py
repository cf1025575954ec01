"""Finds the parameters of the cost model from tables of measured kernels, and writes them.

    python -m bench.fit --tables SYSTEMS_DATA [--machine hgx-h100] [--family matmul] [--write]

`--tables` is the folder `systems/data` of the package `aiconfigurator-core`. Of the shapes, 3 in
10 are held out (whole matrices or heads, at every number of rows); the errors printed and written
are of those. `--write` replaces the tables `[chip.kernels…]` of the catalogue's files. Needs
numpy, pandas, pyarrow and scipy.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from bench import fit_tables
from bench.fit_jobs import Job, jobs
from bench.fit_tables import Rows
from supernode.machine import load_machine
from supernode.machine.fit import KERNELS

CATALOGUE = Path(__file__).parents[1] / "src" / "supernode" / "machine" / "catalogue"
SAMPLE, STEPS, TURNS = 2500, 2000, 5

START = {
    "launch_s": 4e-6,
    "memory": 0.85,
    "sustained": 0.8,
    "overlap": 3.0,
    "tile_s": 1e-6,
    "split_s": 2e-6,
    "draw": 3.0,
    "reread": 1.0,
    "group_s": 2e-8,
    "score_s": 1e-12,
    "hidden": 1.5,
    "depth_s": 5e-7,
    "cache_bytes": 3e7,
    "cache_bytes_per_s": 5e12,
}
"""Where the search starts, of every parameter. It looks for logarithms, so none becomes 0."""

NONE: Mapping[str, float] = {}
AT_MOST = {"memory": 1.0, "sustained": 1.0, "overlap": 8.0, "reread": 4.0, "hidden": 8.0}
AT_LEAST = {"overlap": 1.0, "hidden": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a fit found, and how well it does on the shapes it did not see."""

    values: Mapping[str, float]
    rows: int
    median_error: float
    p90_error: float
    bias: float


def fitted(
    rows: Rows,
    names: tuple[str, ...],
    start: Mapping[str, float] = START,
    given: Mapping[str, float] = NONE,
) -> Found:
    """The parameters that predict 7 of 10 shapes best, with their errors on the other 3; those
    `given` stay."""
    held = rows.site % 10 >= 7
    known, unseen = rows.take(~held), rows.take(held)
    chosen = np.random.default_rng(0).permutation(len(known.seconds))[:SAMPLE]
    sample = known.take(np.isin(np.arange(len(known.seconds)), chosen))
    predict = sample.predict(sample)

    def loss(logs: np.ndarray) -> float:
        error = np.log(predict({**_named(names, logs), **given}) / sample.seconds)
        return float(np.mean(np.sqrt(error**2 + 1e-4)) + 0.3 * np.sqrt(np.mean(error**2)))

    logs = np.log([max(start.get(name, START[name]), START[name] * 1e-3) for name in names])
    limits = [
        (np.log(AT_LEAST.get(n, START[n] * 1e-4)), np.log(AT_MOST.get(n, START[n] * 1e3)))
        for n in names
    ]
    options = {"maxfev": STEPS, "ftol": 1e-5}
    best = np.inf
    for _ in range(TURNS):  # each begins with fresh directions, which helps it out of a corner
        result = minimize(loss, logs, method="Powell", bounds=limits, options=options)
        logs = result.x
        if result.fun > best * 0.995:
            break
        best = float(result.fun)
    values = {**_named(names, logs), **given}
    error = unseen.predict(unseen)(values) / unseen.seconds - 1
    return Found(
        values=values,
        rows=len(error),
        median_error=float(np.median(np.abs(error))),
        p90_error=float(np.quantile(np.abs(error), 0.9)),
        bias=float(np.median(error)),
    )


def _start(job: Job) -> Mapping[str, float]:
    known = load_machine(job.machine).chip.kernels.get(f"{job.family}.{job.dtype}")
    return START if known is None else {name: n.value for name, n in known.values.items()}


def _named(names: tuple[str, ...], logs: np.ndarray) -> dict[str, float]:
    return dict(zip(names, np.exp(logs).tolist(), strict=True))


def toml(job: Job, found: Found) -> str:
    """The table of a machine file that says so."""
    lines = [
        f"[chip.kernels.{job.family}.{job.dtype}]",
        'source = "AIC"',
        'date = "2026-08-21"',
        'kind = "measured"',
        f'note = "fitted to {_named_tables(job)}"',
        f"rows = {found.rows}",
        f"median_error = {found.median_error:.3f}",
        f"p90_error = {found.p90_error:.3f}",
        *(f"{name} = {value:.4g}" for name, value in found.values.items()),
    ]
    return "\n".join(lines) + "\n"


def _named_tables(job: Job) -> str:
    """The tables, without the folder of the machine."""
    if len(job.tables) == 1:
        return job.tables[0].split("/", 1)[1]
    folders = (table.split("/", 1)[1].rpartition("/")[0] for table in job.tables)
    which = "fastest" if job.fastest else "middle"
    return f"the {which} of {', '.join(folders)}: {job.tables[0].rpartition('/')[2]}"


def write(job: Job, text: str) -> None:
    """Replaces the table in the machine's file, or adds it before the levels."""
    path = CATALOGUE / f"{job.machine}.toml"
    old = path.read_text(encoding="utf-8")
    head = re.escape(text.splitlines()[0])
    without = re.sub(rf"{head}\n(?:[a-z0-9_]+ = .*\n)*\n", "", old)
    at = without.index("[dies]" if "[dies]" in without else "[[levels]]")
    path.write_text(f"{without[:at]}{text}\n{without[at:]}", encoding="utf-8")


def main() -> None:
    """Fits what is asked for and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--machine", default="")
    parser.add_argument("--family", default="")
    parser.add_argument("--dtype", default="")
    parser.add_argument("--refine", action="store_true", help="start from what is written")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    for job in jobs():
        wanted = (asked.machine, asked.family, asked.dtype)
        is_meant = zip(wanted, (job.machine, job.family, job.dtype), strict=True)
        if all(want in ("", have) for want, have in is_meant):
            read: Callable[..., Rows] = getattr(fit_tables, job.family)
            dtype = "bfloat16" if job.dtype == "any" else job.dtype
            paths = [asked.tables / table for table in job.tables]
            how: dict[str, bool | str] = {} if job.fastest else {"fastest": False}
            how |= {"unit": job.unit} if job.unit else {}
            rows = read(paths, load_machine(job.machine), dtype, job.chosen, **how)
            names = (*KERNELS[job.family], *job.also)
            start = _start(job) if asked.refine else START
            found = fitted(rows, names, start, dict(job.given))
            if job.family == "matmul":
                kept_up = fit_tables.steady(rows, load_machine(job.machine), dtype)
                if kept_up is not None:
                    found = replace(found, values={**found.values, "steady": kept_up})
            print(
                f"{job.machine:14} {job.family:10} {job.dtype:9} {found.rows:6} rows held out: "
                f"median {found.median_error:.1%}, p90 {found.p90_error:.1%}, "
                f"bias {found.bias:+.1%}",
                flush=True,
            )
            if asked.write:
                write(job, toml(job, found))


if __name__ == "__main__":
    main()
