"""Quantisation: a product is cut into tiles, the tiles run in waves, one tile a core.

A chip with 132 cores does 133 tiles in two waves. Libraries choose among a few tile sizes and may
split the sum over k among cores that would idle; the menu below is what CUTLASS-like libraries
ship, the choice is left to the cost (the cheapest is taken).

**Source:** NVIDIA, "Matrix Multiplication Background User's Guide" (tile and wave quantisation);
Osama et al., "Stream-K", PPoPP 2023 (splitting k). The menu: CUTLASS 3 default kernels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from supernode.simulate.cost.rates import Array, Number

GRAIN = 64
"""The rows of the smallest tile, and by how many the sum over k advances at a time."""

_TILES = ((64, 32), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
_SPLITS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """Every choice of a tile of `rows x columns` and of how many cores share a sum.

    Sums advance by `grain` at a time.
    """

    rows: Array
    columns: Array
    splits: Array
    grain: float = GRAIN


def _menu(splits: tuple[int, ...]) -> Menu:
    choices = [(*tile, split) for tile in _TILES for split in splits]
    rows, columns, split = (
        np.array(column, dtype=np.float64) for column in zip(*choices, strict=True)
    )
    return Menu(rows=rows, columns=columns, splits=split)


MENU = _menu(_SPLITS)
WHOLE = _menu((1,))
"""The menu of kernels that never split k."""


@cache
def finer(grain: float) -> Menu:
    """The menu of a chip whose smallest tile has `grain` rows, not 64: processors have no warps."""
    scale = grain / GRAIN
    return Menu(
        rows=MENU.rows * scale, columns=MENU.columns * scale, splits=MENU.splits, grain=grain
    )


def waves(tiles: Number, cores: float) -> Array:
    """How often the chip fills with tiles."""
    return np.ceil(np.asarray(tiles) / cores)


def depth(k: Number, menu: Menu) -> Array:
    """How deep the sum of one tile is: k over the splits, in whole steps."""
    return np.ceil(np.ceil(np.asarray(k) / menu.splits) / menu.grain) * menu.grain
