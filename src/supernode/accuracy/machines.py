"""The machine of a row as a user names it, and its number of chips."""

import math

from supernode.accuracy.truth import Row

_NODE = {"gb200-nvl72": 72, "gb300-nvl72": 72, "cloudmatrix384": 384}
"""Chips of one machine; all others are nodes of eight."""
_NAMES = {"atlas-800t-a2-313": "atlas-800t-a2"}
_DIES = ("atlas-800t-a3", "cloudmatrix384")
"""Machines whose chips are packages of two dies, which published layouts count."""


def machine_of(row: Row, chips: int | None = None) -> tuple[str, int]:
    """The name (`64xhgx-h100`, `cloudmatrix384@die`) and how many chips, or dies, are used."""
    name = _NAMES.get(row.machine, row.machine)
    used = chips or row.count("chips", 1)
    packages = row.text("chip_unit") != "die"
    count = math.ceil(used / _NODE.get(row.machine, 8))
    prefix = f"{count}x" if count > 1 else ""
    if row.machine in _DIES:
        return f"{prefix}{name}@die", used * (2 if packages else 1)
    return f"{prefix}{name}", used


def network_of(row: Row) -> float | None:
    """The rate of the network in bytes/s per chip, where the row's note gives it."""
    stated = row.noted_number("net")
    return None if stated is None else stated * 1e9
