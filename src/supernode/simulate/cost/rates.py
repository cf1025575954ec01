"""What a chip can do at best in one dtype, and how two limits join."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = Array | float


class Parameters(Protocol):
    """Numbers by name: a Fit of a machine file, or a dict while fitting."""

    def __getitem__(self, name: str, /) -> float: ...

    def get(self, name: str, default: float, /) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The datasheet's: FLOP/s of the unit that serves a dtype, bytes/s of memory, and cores."""

    flops_per_s: float
    bytes_per_s: float
    cores: float


def joined(first: Number, second: Number, overlap: float) -> Array:
    """The time of two things at once: `max` at best, the sum for `overlap` 1, between them else.

    Kernels hide memory traffic behind arithmetic (or the other way round), but not all of it,
    least where both take equally long. Never below the longer one.

    **Source:** the p-norm form of the roofline's corner: Cabezas and Püschel, "Extending the
    Roofline Model", IISWC 2014.
    """
    longer, shorter = np.maximum(first, second), np.minimum(first, second)
    share = shorter / np.maximum(longer, 1e-30)
    return longer * (1 + share**overlap) ** (1 / overlap)
