"""Cuts: which part of a dim each chip gets, equal or not."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from supernode.plan import (
    Layout,
    Mesh,
    Within,
    breaks,
    cut,
    cut_axis,
    cut_units,
    cut_within,
    fits,
    is_uneven,
    piece_size,
    pieces,
    units_left,
)

MESH = Mesh((("dp", 2), ("fsdp", 3), ("tp", 4)))
AXES = [axis for axis, _ in MESH.axes]


@pytest.mark.parametrize(
    ("text", "axis", "within", "units"),
    [
        ("dp", "dp", 1, 0),
        ("cp:8", "cp", 8, 0),
        ("tp/6", "tp", 1, 6),
        ("cp:8/9", "cp", 8, 9),
        ("tp:4+1+1", "tp", (4, 1, 1), 0),
        ("tp:2+1/3", "tp", (2, 1), 3),
    ],
)
def test_a_cut_is_a_word(text: str, axis: str, within: Within, units: int) -> None:
    assert cut(axis, within, units) == text
    assert (cut_axis(text), cut_within(text), cut_units(text)) == (axis, within, units)


def test_stretches_of_one_size_are_groups_and_sizes_are_to_each_other() -> None:
    assert cut("tp", (32, 32, 32)) == "tp:3"
    assert cut("tp", (64, 16, 16)) == "tp:4+1+1"
    assert cut("tp", (8,)) == "tp"


def sizes(cuts: tuple[str, ...], size: int, axis: str) -> list[int]:
    return [piece_size(cuts, size, MESH, {axis: i}) for i in range(MESH.axis_size(axis))]


def test_the_first_chips_get_the_units_that_are_left() -> None:
    assert sizes(("tp/6",), 6, "tp") == [2, 2, 1, 1]
    assert sizes(("tp/6",), 384, "tp") == [128, 128, 64, 64]
    assert sizes(("fsdp/7",), 7, "fsdp") == [3, 2, 2]
    assert sizes(("fsdp:4/7",), 28, "fsdp") == [12, 8, 8]


@st.composite
def cut_dims(draw: st.DrawFn, within: Sequence[Within] = (1,)) -> tuple[tuple[str, ...], int]:
    """Cuts of one dim by some axes, and its size."""
    inside = draw(st.sampled_from(within))
    stretches = inside if isinstance(inside, tuple) else (1,) * inside
    unit = draw(st.integers(1, 60))
    axes = draw(st.permutations(AXES))[: draw(st.integers(1, 3))]
    divisors = [n for n in range(1, unit + 1) if unit % n == 0]
    cuts = tuple(cut(axis, inside, draw(st.sampled_from([0, *divisors]))) for axis in axes)
    assume(fits(cuts, unit * sum(stretches), MESH))
    return cuts, unit * sum(stretches)


WITHIN = (1, 2, 3, (2, 1, 1), (1, 3))


@given(cut_dims(WITHIN))
def test_pieces_cover_a_dim_exactly(given_: tuple[tuple[str, ...], int]) -> None:
    cuts, size = given_
    layout = Layout((cuts,))
    named = {cut_axis(each) for each in cuts}
    seen = torch.zeros(size, dtype=torch.int32)
    for rank in range(MESH.size):
        places = torch.arange(size)
        piece = torch.full(layout.local_shape((size,), MESH, rank), -1)
        for there, here in layout.boxes((size,), MESH, rank):
            piece[here] = places[there]
        assert 0 < len(piece) <= layout.local_shape((size,), MESH)[0]
        assert piece.tolist() == sorted({*piece.tolist()} - {-1})
        assert [i for each in MESH.ranges(size, cuts, rank) for i in each] == piece.tolist()
        seen[piece] += 1
    assert (seen == MESH.size // math.prod(MESH.axis_size(axis) for axis in named)).all()


@given(cut_dims(WITHIN))
def test_chips_between_two_breaks_have_pieces_of_one_size(
    given_: tuple[tuple[str, ...], int],
) -> None:
    cuts, size = given_
    found = list(breaks(cuts, size, MESH))
    assert bool(found) == is_uneven(cuts, size, MESH)
    lengths: dict[tuple[int, ...], set[int]] = {}
    for rank in range(MESH.size):
        at = MESH.coordinates(rank)
        variant = tuple(sum(at[axis] >= start for a, start in found if a == axis) for axis in AXES)
        lengths.setdefault(variant, set()).add(piece_size(cuts, size, MESH, at))
    assert all(len(each) == 1 for each in lengths.values())
    assert bool(found) == (len(set.union(*lengths.values())) > 1)


@given(cut_dims())
def test_a_span_is_where_a_piece_lies(given_: tuple[tuple[str, ...], int]) -> None:
    cuts, size = given_
    for rank in range(MESH.size):
        at = MESH.coordinates(rank)
        ((_, start, length),) = pieces(cuts, size, MESH, at)
        before, here = MESH.span(cuts, at)
        assert before * length == start * here


def test_units_left_are_those_the_last_cut_shares_out() -> None:
    assert units_left(("dp/7", "fsdp/7"), 14, MESH, {"dp": 0}) == 4
    assert units_left(("dp/7", "fsdp/7"), 14, MESH, {"dp": 1}) == 3
    assert units_left(("dp",), 14, MESH, {}) == 2
    assert units_left(("dp/7", "tp:7/5"), 35, MESH, {"dp": 1}) == 5
    assert units_left(("dp:2+1/7", "fsdp:2+1/7"), 42, MESH, {"dp": 1}) == 3


@pytest.mark.parametrize(
    ("cuts", "size", "fine"),
    [
        (("tp",), 8, True),
        (("tp",), 6, False),
        (("tp/6",), 6, True),
        (("tp/3",), 6, False),
        (("tp/4",), 6, False),
        (("dp/7", "fsdp/7"), 7, True),
        (("fsdp/7", "tp/7"), 7, False),
        (("dp/7", "tp:7/5"), 35, True),
        (("dp/7", "tp:5"), 35, False),
        (("tp", "fsdp/8"), 8, False),
        (("dp",), 0, True),
        (("tp:2+1",), 12, True),
        (("tp:2+1",), 6, False),
        (("tp:2+1/3",), 9, False),
        (("dp:2+1/3",), 9, True),
        (("dp:2+1", "tp"), 24, False),
        (("dp:2+1", "tp:2+1"), 24, True),
    ],
)
def test_what_fits(cuts: tuple[str, ...], size: int, fine: bool) -> None:
    assert fits(cuts, size, MESH) == fine


def test_cuts_of_groups_and_of_the_whole_do_not_depend_on_their_order() -> None:
    cuts = ("dp/7", "tp:7/5")
    for rank, order in itertools.product(range(MESH.size), itertools.permutations(cuts)):
        at = MESH.coordinates(rank)
        assert pieces(order, 35, MESH, at) == pieces(cuts, 35, MESH, at)
