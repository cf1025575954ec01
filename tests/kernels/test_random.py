"""Random numbers: known answers, two computations, any piece alike, the distributions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import drawn
from supernode.kernels import RANDOM, Piece, piece_of
from supernode.kernels.philox import FORMULAS, elements, philox
from supernode.kernels.surroundings import OneChip
from supernode.plan import Mesh

DRAW = (2**63 - 25, 4, 9)
"""Seed, step, number of the draw."""
MESH = Mesh((("a", 2), ("b", 2)))
SHAPE = (4, 6, 10)
LAYOUTS: tuple[tuple[tuple[str, ...], ...], ...] = (
    ((), (), ()),
    (("a",), (), ()),
    ((), (), ("b",)),
    ((), ("a",), ("b",)),
    (("a", "b"), (), ()),
    (("a:2",), ("b:3",), ()),
    ((), (), ("b:5",)),
    (("b",), (), ("a:5",)),
)
KINDS: tuple[tuple[str, tuple[Any, ...], torch.dtype], ...] = (
    ("uniform", (), torch.float32),
    ("uniform", (), torch.float64),
    ("uniform", (), torch.bfloat16),
    ("uniform", (), torch.float16),
    ("normal", (), torch.float32),
    ("normal", (), torch.float64),
    ("normal", (), torch.bfloat16),
    ("exponential", (), torch.float32),
    ("exponential", (), torch.float64),
    ("bernoulli", (0.3,), torch.float32),
    ("bernoulli", (0.0,), torch.float32),
    ("bernoulli", (1.0,), torch.float32),
    ("bernoulli", (0.3,), torch.bool),
    ("bernoulli", (0.3,), torch.float16),
    ("bernoulli", (0.3,), torch.int64),
    ("integer", (-3, 2**62), torch.int64),
    ("integer", (0, 7), torch.float32),
)
IDS = [f"{kind}-{'-'.join(map(str, args))}-{dtype}" for kind, args, dtype in KINDS]


def _whole(*shape: int) -> Piece:
    return piece_of(shape, ((),) * len(shape), OneChip(), 0)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], answer: str) -> None:
    """**Source:** Random123, tests/kat_vectors, lines `philox4x32 10`, D. E. Shaw Research."""
    low = counter[0] | counter[1] << 32
    blocks = torch.tensor([low - 2**64 if low >= 2**63 else low])
    found = philox(blocks, key[0] | key[1] << 32, counter[3], counter[2])[0].tolist()
    assert " ".join(f"{word:08x}" for word in found) == answer


@pytest.mark.parametrize(("kind", "args", "dtype"), KINDS, ids=IDS)
def test_numbers_are_those_of_the_reference(
    kind: str, args: tuple[Any, ...], dtype: torch.dtype
) -> None:
    for shape in ((5, 7, 3), (), (1,), (0, 3), (2500,)):
        got = RANDOM[kind](*DRAW, _whole(*shape), *args, dtype=dtype)
        want = getattr(drawn, kind)(shape, dtype, *args, *DRAW)
        assert (got.dtype, got.shape) == (dtype, torch.Size(shape))
        _same(got, want)


@pytest.mark.parametrize(("kind", "args", "dtype"), KINDS, ids=IDS)
def test_each_piece_is_that_of_the_whole(
    kind: str, args: tuple[Any, ...], dtype: torch.dtype
) -> None:
    whole = RANDOM[kind](*DRAW, _whole(*SHAPE), *args, dtype=dtype)
    for cuts in LAYOUTS:
        for rank in range(MESH.size):
            want = whole
            for dim, (size, each) in enumerate(zip(SHAPE, cuts, strict=True)):
                found = [i for part in MESH.ranges(size, each, rank) for i in part]
                want = want.index_select(dim, torch.tensor(found))
            got = RANDOM[kind](*DRAW, piece_of(SHAPE, cuts, MESH, rank), *args, dtype=dtype)
            assert torch.equal(got, want)


ARGUMENTS: dict[str, tuple[int, ...]] = {
    "uniform": (24,),
    "bernoulli": (10**9,),
    "integer": (-3, 2**62 + 3),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_other_devices_get_the_numbers_of_processors(kind: str) -> None:
    """What a GPU computes is run here on the processor."""
    dtype = torch.float64 if kind.endswith("_wide") else torch.float32
    name = kind.removesuffix("_wide")
    public = {"bernoulli": ((10**9 + 1) / 2**32,), "integer": (-3, 2**62)}.get(name, ())
    dtype = torch.int64 if kind == "integer" else dtype
    for cuts in LAYOUTS:
        here = piece_of(SHAPE, cuts, MESH, 3)
        other = elements(kind, here, *DRAW, ARGUMENTS.get(kind, ())).to(dtype)
        _same(RANDOM[name](*DRAW, here, *public, dtype=dtype), other)


def _same(got: Tensor, want: Tensor) -> None:
    """Bit for bit, but for logarithms and cosines that are not rounded afterwards."""
    if got.dtype == torch.float64:
        torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-15)
    else:
        assert torch.equal(got, want)


def test_numbers_beyond_the_first_2_to_the_32_blocks_are_others() -> None:
    grid = Mesh((("a", 2**33),))
    far = piece_of((2**35,), (("a",),), grid, 2**32)
    assert far.starts.tolist() == [2**34]
    near = piece_of((2**35,), (("a",),), grid, 0)
    pair = [RANDOM["uniform"](*DRAW, each, dtype=torch.float64) for each in (far, near)]
    assert (pair[0] != pair[1]).all()


COUNT = 1 << 18


def _kolmogorov_smirnov(values: Tensor, cumulative: Tensor) -> float:
    """The largest distance of the empirical distribution from the true one, times sqrt(n)."""
    n = len(values)
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    at = cumulative.sort().values
    return float(torch.maximum(steps - at, at - steps + 1 / n).max()) * math.sqrt(n)


CUMULATIVE = {
    "uniform": lambda x: x,
    "normal": lambda x: 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "exponential": lambda x: 1 - torch.exp(-x),
}
MOMENTS = {"uniform": (0.5, 1 / 12), "normal": (0.0, 1.0), "exponential": (1.0, 1.0)}


@pytest.mark.parametrize("kind", CUMULATIVE)
def test_distributions(kind: str) -> None:
    """At a fixed seed: five standard errors, and the test of Kolmogorov and Smirnov at 0.1 %."""
    for draw in range(4):
        x = RANDOM[kind](1, 0, draw, _whole(COUNT), dtype=torch.float32).double()
        mean, variance = MOMENTS[kind]
        assert abs(x.mean() - mean) < 5 * math.sqrt(variance / COUNT)
        fourth = (x - mean).pow(4).mean() - variance**2
        assert abs((x - mean).square().mean() - variance) < 5 * math.sqrt(fourth / COUNT)
        assert _kolmogorov_smirnov(x, CUMULATIVE[kind](x)) < 1.95


def test_coins_and_dice_are_fair() -> None:
    for p in (0.1, 0.5, 0.9):
        coins = RANDOM["bernoulli"](1, 0, 0, _whole(COUNT), p, dtype=torch.float64)
        assert abs(coins.mean() - p) < 5 * math.sqrt(p * (1 - p) / COUNT)
    dice = RANDOM["integer"](1, 0, 0, _whole(COUNT), 1, 7, dtype=torch.int64)
    counts = dice.bincount(minlength=8)
    assert counts[0] == counts[7] == 0
    chi_square = ((counts[1:7] - COUNT / 6) ** 2 / (COUNT / 6)).sum()
    assert chi_square < 20.5  # 5 degrees of freedom, 0.1 %


@pytest.mark.parametrize("position", range(3), ids=["seed", "step", "draw"])
def test_other_seeds_steps_and_draws_are_independent(position: int) -> None:
    here = list(DRAW)
    there = list(DRAW)
    there[position] += 1
    x, y = (RANDOM["normal"](*each, _whole(COUNT), dtype=torch.float64) for each in (here, there))
    assert abs((x * y).mean()) < 5 / math.sqrt(COUNT)
    assert abs((x[:-1] * y[1:]).mean()) < 5 / math.sqrt(COUNT)
    assert abs((x[:-1] * x[1:]).mean()) < 5 / math.sqrt(COUNT)
