"""`random.*` ops: numbers that depend on seed, step, draw and global index of the element alone.

Each function gets the seed, the step, the number of the draw within the step and this chip's piece
of the tensor; then what the op has more. Processors run native/random.c, other devices the same in
torch's integer arithmetic. Integers, uniform numbers and coin tosses have the same bits on all
devices; logarithms and cosines are taken in double precision and rounded.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supernode.kernels.compiled import compiled
from supernode.kernels.philox import elements
from supernode.kernels.piece import Piece

_DIGITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
"""How many binary digits of a number in [0, 1) a dtype holds at least."""

_WORD = 2**32


def uniform(seed: int, step: int, draw: int, piece: Piece, *, dtype: torch.dtype) -> Tensor:
    """In [0, 1), evenly spaced: by 2^-24 in float32, 2^-53 in float64, 2^-8 in bfloat16."""
    if dtype == torch.float64:
        return _filled("uniform_wide", dtype, piece, seed, step, draw)
    return _filled("uniform", torch.float32, piece, seed, step, draw, _DIGITS[dtype]).to(dtype)


def normal(seed: int, step: int, draw: int, piece: Piece, *, dtype: torch.dtype) -> Tensor:
    """Of mean 0 and deviation 1."""
    kind, made = _precision("normal", dtype)
    return _filled(kind, made, piece, seed, step, draw).to(dtype)


def exponential(seed: int, step: int, draw: int, piece: Piece, *, dtype: torch.dtype) -> Tensor:
    """Of mean 1, never zero."""
    kind, made = _precision("exponential", dtype)
    return _filled(kind, made, piece, seed, step, draw).to(dtype)


def bernoulli(
    seed: int, step: int, draw: int, piece: Piece, p: float, *, dtype: torch.dtype
) -> Tensor:
    """One with probability `p`, rounded to 2^-32; else zero."""
    last = round(p * _WORD) - 1
    if last < 0:
        return torch.zeros(piece.shape, dtype=dtype, device=piece.starts.device)
    return _filled("bernoulli", dtype, piece, seed, step, draw, min(last, _WORD - 1))


def integer(
    seed: int, step: int, draw: int, piece: Piece, low: int, high: int, *, dtype: torch.dtype
) -> Tensor:
    """From `low` up to, without, `high`; one is more likely than another by count / 2^64 at most.

    **Source:** Lemire, "Fast random integer generation in an interval", ACM TOMACS 29, 2019: the
    upper half of a product, here without rejection.
    """
    return _filled("integer", torch.int64, piece, seed, step, draw, low, high - low).to(dtype)


RANDOM: dict[str, Callable[..., Tensor]] = {
    "uniform": uniform,
    "normal": normal,
    "exponential": exponential,
    "bernoulli": bernoulli,
    "integer": integer,
}
"""The function of each `random.*` op, by the name behind the dot."""


def prepare(device: str) -> None:
    """Compiles what draws on processors now, rather than in the first step."""
    if device == "cpu":
        _library()


def _precision(kind: str, dtype: torch.dtype) -> tuple[str, torch.dtype]:
    wide = dtype == torch.float64
    return (f"{kind}_wide", dtype) if wide else (kind, torch.float32)


def _filled(
    kind: str, dtype: torch.dtype, piece: Piece, seed: int, step: int, draw: int, *args: int
) -> Tensor:
    """The piece, drawn by what suits its device."""
    device = piece.starts.device
    if device.type != "cpu":
        return elements(kind, piece, seed, step, draw, args).to(dtype)
    out = torch.empty(piece.shape, dtype=dtype)
    if not out.numel():
        return out
    if kind == "bernoulli":
        kind, args = f"bernoulli_uint{8 * dtype.itemsize}_t", (_bits_of_one(dtype), *args)
    starts = piece.starts
    where = _Piece(seed, draw, step, len(starts), piece.run, starts.data_ptr())
    _native(kind)(ctypes.byref(where), out.data_ptr(), *args)
    return out


class _Piece(ctypes.Structure):
    """`Piece` of native/random.c."""

    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("draw", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("rows", ctypes.c_int64),
        ("run", ctypes.c_int64),
        ("starts", ctypes.c_void_p),
    )


_ARGUMENTS: dict[str, tuple[type, ...]] = {
    "uniform": (ctypes.c_int,),
    "integer": (ctypes.c_int64, ctypes.c_uint64),
    "bernoulli_uint8_t": (ctypes.c_uint8, ctypes.c_uint32),
    "bernoulli_uint16_t": (ctypes.c_uint16, ctypes.c_uint32),
    "bernoulli_uint32_t": (ctypes.c_uint32, ctypes.c_uint32),
    "bernoulli_uint64_t": (ctypes.c_uint64, ctypes.c_uint32),
}


@cache
def _native(kind: str) -> Callable[..., Any]:
    function = getattr(_library(), f"sn_{kind}")
    function.restype = None
    function.argtypes = (ctypes.POINTER(_Piece), ctypes.c_void_p, *_ARGUMENTS.get(kind, ()))
    return function


@cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("native") / "random.c"
    return ctypes.CDLL(str(compiled(source, "drawing random numbers")))


@cache
def _bits_of_one(dtype: torch.dtype) -> int:
    """The memory of the number one, as an integer of its size."""
    same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return int(torch.ones(1, dtype=dtype).view(same_size[dtype.itemsize]))
