"""Philox4x32-10 in torch's integer arithmetic, and what numbers are made of its words.

A block of four words of 32 bits comes from a key of 64 bits, the seed, and a counter of 128: the
number of the block (64 bits), the number of the draw, the step. `native/random.c` gives the same
numbers on processors, faster.

**Source:** Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from supernode.kernels.piece import Piece

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(blocks: Tensor, seed: int, step: int, draw: int) -> Tensor:
    """The four words of each of `blocks` (int64), as int64 in a last dim."""
    x0, x1 = blocks & _LOW, _high(blocks)
    x2, x3 = torch.full_like(blocks, draw & _LOW), torch.full_like(blocks, step & _LOW)
    keys = [seed & _LOW, seed >> 32 & _LOW]
    for _ in range(_ROUNDS):
        # 64 bits of a product are the same for signed factors.
        a, b = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        x0, x1, x2, x3 = _high(b) ^ x1 ^ keys[0], b & _LOW, _high(a) ^ x3 ^ keys[1], a & _LOW
        keys = [(key + more) & _LOW for key, more in zip(keys, _KEY_STEPS, strict=True)]
    return torch.stack((x0, x1, x2, x3), -1)


def _high(x: Tensor) -> Tensor:
    return x >> 32 & _LOW


def elements(kind: str, piece: Piece, seed: int, step: int, draw: int, args: Any) -> Tensor:
    """The piece's elements of a draw of `kind`, by the formula of that name below."""
    formula, each = FORMULAS[kind]
    # Whole blocks first: a row starts with the block that its first element is in.
    count = (piece.run + each - 1) // each + 1
    device = piece.starts.device
    blocks = (piece.starts // each).unsqueeze(1) + torch.arange(count, device=device)
    words = philox(blocks, seed, step, draw).reshape(len(blocks), count * each, 4 // each)
    values = formula(words, *args)
    at = (piece.starts % each).unsqueeze(1) + torch.arange(piece.run, device=device)
    return values.gather(1, at).reshape(piece.shape)


# The formulas take words [rows, elements, 1 or 2 an element], low word first.


def _uniform(words: Tensor, digits: int) -> Tensor:
    return (words[..., 0] >> 32 - digits).float() * 2.0**-digits


def _uniform_wide(words: Tensor) -> Tensor:
    return (words[..., 1] << 21 | words[..., 0] >> 11).double() * 2.0**-53


def _bernoulli(words: Tensor, last: int) -> Tensor:
    return words[..., 0] <= last


def _integer(words: Tensor, low: int, count: int) -> Tensor:
    """`low` and the upper 64 of 128 bits of word times count, from products of 32 bits each."""
    a, b = words[..., 0], words[..., 1]
    below, above = count & _LOW, count >> 32
    middle = b * below + _high(a * below)
    other = a * above + (middle & _LOW)
    return b * above + _high(middle) + _high(other) + low


def _inside(words: Tensor) -> Tensor:
    """In (0, 1), so that its logarithm is finite and not zero."""
    if words.shape[-1] == 1:
        return (words[..., 0].double() + 0.5) * 2.0**-32
    return ((words[..., 1] << 20 | words[..., 0] >> 12).double() + 0.5) * 2.0**-52


def _exponential(words: Tensor) -> Tensor:
    return -_inside(words).log()


def _normal(words: Tensor) -> Tensor:
    """Two normal numbers from two uniform ones.

    **Source:** Box, Muller, "A note on the generation of random normal deviates", Annals of
    Mathematical Statistics 29, 1958.
    """
    u, v = _inside(words).unflatten(1, (-1, 2)).unbind(-1)
    radius, angle = (-2.0 * u.log()).sqrt(), 2.0 * math.pi * v
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(1)


FORMULAS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "uniform": (_uniform, 4),
    "uniform_wide": (_uniform_wide, 2),
    "bernoulli": (_bernoulli, 4),
    "integer": (_integer, 2),
    "exponential": (_exponential, 4),
    "exponential_wide": (_exponential, 2),
    "normal": (_normal, 4),
    "normal_wide": (_normal, 2),
}
"""By kind: its formula, and how many elements a block of four words gives."""
