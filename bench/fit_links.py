"""Finds the parameters of the collective library on a level from tables of NCCL's times.

    python -m bench.fit_links --tables SYSTEMS_DATA [--machine hgx-h100] [--write]

One message size in four is held out (with all its collectives and group sizes); the errors printed
and written are of those. `--write` replaces the table `[levels.transport]` of the innermost level.
Needs numpy, pandas, pyarrow and scipy.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from bench.fit import CATALOGUE, Found
from supernode.machine import Fit, Machine, Sourced, load_machine
from supernode.simulate import collective_time
from supernode.simulate.collective_time import Collective

TABLES = {
    "hgx-a100": "a100_sxm/comm/nccl/2.27.3",
    "hgx-h100": "h100_sxm/comm/nccl/2.27.3",
    "hgx-h200": "h200_sxm/comm/nccl/2.26.2",
    "hgx-b200": "b200_sxm/comm/nccl/2.27.3",
    "hgx-b300": "b300_sxm/comm/nccl/2.29.2",
    "gb200-nvl72": "gb200/comm/nccl/2.29.2",
    "gb300-nvl72": "gb300/comm/nccl/2.29.2",
}

START = {
    "start_s": 5e-6,
    "short_hop_s": 9e-7,
    "short_share": 0.1,
    "middle_hop_s": 1.5e-6,
    "middle_share": 0.4,
    "long_hop_s": 4e-6,
    "long_share": 0.7,
    "pair_share": 0.8,
    "peer_s": 1e-7,
    "exchange_start_s": 2e-6,
    "exchange_share": 0.05,
    "exchange_long_s": 6e-6,
    "exchange_long_share": 0.65,
    "switch_start_s": 2e-5,
    "switch_share": 0.5,
}
NO_SWITCH = ("hgx-a100",)
"""Machines whose switches do not add."""

NAMES: Mapping[str, Collective] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured collective; `data_bytes` as in `collective_time`."""

    collective: Collective
    size: int
    data_bytes: float
    seconds: float
    held_out: bool


def read(path: Path) -> list[Row]:
    """The rows of a table; its sizes count elements of two bytes."""
    frame = pd.read_parquet(path / "nccl_perf.parquet").query("nccl_dtype == 'half'")
    keys = ["op_name", "num_gpus", "message_size"]
    frame = frame.groupby(keys, as_index=False).latency.median()
    return [
        Row(
            collective=NAMES[str(op)],
            size=int(size),
            data_bytes=2.0 * elements,
            seconds=latency * 1e-3,
            held_out=int(np.log2(elements)) % 4 == 3,
        )
        for op, size, elements, latency in frame.itertuples(index=False)
    ]


def predicted(machine: Machine, rows: list[Row], values: Mapping[str, float]) -> np.ndarray:
    """The seconds of each row."""
    numbers = {
        name: Sourced(value=value, source="AIC", date="2026", kind="measured")
        for name, value in values.items()
    }
    level = replace(machine.levels[0], transport=Fit(values=numbers))
    target = replace(machine, levels=(level, *machine.levels[1:]))
    return np.array(
        [
            collective_time(
                row.collective, row.data_bytes, machine=target, stride=1, size=row.size
            ).time_s
            for row in rows
        ]
    )


def fitted(machine: Machine, rows: list[Row]) -> Found:
    """The parameters that predict the rows that are not held out best."""
    names = [n for n in START if machine.name not in NO_SWITCH or not n.startswith("switch")]
    known = [row for row in rows if not row.held_out]
    seconds = np.array([row.seconds for row in known])

    def loss(logs: np.ndarray) -> float:
        values = dict(zip(names, np.exp(logs), strict=True))
        error = np.log(predicted(machine, known, values) / seconds)
        return float(np.mean(np.sqrt(error**2 + 1e-4)) + 0.3 * np.sqrt(np.mean(error**2)))

    limits = [
        (np.log(START[n] * 1e-3), 0.0 if n.endswith("share") else np.log(START[n] * 1e2))
        for n in names
    ]
    logs = np.log([START[name] for name in names])
    for _ in range(2):
        options = {"maxfev": 2500, "ftol": 1e-5}
        logs = minimize(loss, logs, method="Powell", bounds=limits, options=options).x
    values = dict(zip(names, np.exp(logs).tolist(), strict=True))
    unseen = [row for row in rows if row.held_out]
    error = predicted(machine, unseen, values) / np.array([row.seconds for row in unseen]) - 1
    return Found(
        values=values,
        rows=len(unseen),
        median_error=float(np.median(np.abs(error))),
        p90_error=float(np.quantile(np.abs(error), 0.9)),
        bias=float(np.median(error)),
    )


def write(machine: str, found: Found) -> None:
    """Replaces the table in the machine's file, or adds it at the end of the first level."""
    lines = [
        "[levels.transport]",
        'source = "AIC"',
        'date = "2026-08-21"',
        'kind = "measured"',
        f'note = "fitted to {TABLES[machine].split("/", 1)[1]}"',
        f"rows = {found.rows}",
        f"median_error = {found.median_error:.3f}",
        f"p90_error = {found.p90_error:.3f}",
        *(f"{name} = {value:.4g}" for name, value in found.values.items()),
    ]
    path = CATALOGUE / f"{machine}.toml"
    old = path.read_text(encoding="utf-8")
    without = re.sub(r"\n\[levels\.transport\]\n(?:[a-z0-9_]+ = .*\n)*", "", old)
    first = without.index("[[levels]]")
    found_end = re.search(r"\n\n", without[first:])
    at = first + found_end.start() + 1 if found_end else len(without)
    path.write_text(without[:at] + "\n" + "\n".join(lines) + "\n" + without[at:], encoding="utf-8")


def main() -> None:
    """Fits what is asked for and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--machine", default="")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    for name, folder in TABLES.items():
        if asked.machine in ("", name):
            found = fitted(load_machine(name), read(asked.tables / folder))
            print(
                f"{name:14} {found.rows:4} rows held out: median {found.median_error:.1%}, "
                f"p90 {found.p90_error:.1%}, bias {found.bias:+.1%}",
                flush=True,
            )
            if asked.write:
                write(name, found)


if __name__ == "__main__":
    main()
