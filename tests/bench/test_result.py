"""Rows: a ratio is the median over rounds, and says whether it is as wanted."""

import pytest
from bench.result import Row


def test_a_ratio_is_taken_within_each_round():
    # A host four times as slow in the second round changes no ratio.
    row = Row(what="step", ours=(1.0, 4.0, 1.0), theirs=(2.0, 8.0, 3.0), at_least=2.0)
    assert row.ratios == (2.0, 2.0, 3.0)
    assert row.ratio == 2.0
    assert row.is_met
    assert row.result == "2.00x (1 s against 3 s)"
    assert row.wanted == "≥ 2x"


def test_a_ratio_that_is_too_small_is_missed():
    row = Row(what="step", ours=(2.0,), theirs=(1.0,), at_least=0.95)
    assert row.is_met is False


def test_a_number_by_itself_has_a_largest_value():
    row = Row(what="memory", ours=(1e9, 3e9, 2e9), unit="B", at_most=1.5e9)
    assert row.ratio is None
    assert row.result == "2 GB"
    assert row.wanted == "≤ 1.5 GB"
    assert row.is_met is False


def test_a_row_of_which_nothing_is_asked_is_neither_met_nor_missed():
    assert Row(what="time", ours=(1.0,)).is_met is None


def test_every_round_needs_both_sides():
    with pytest.raises(AssertionError, match="uneven rounds"):
        Row(what="step", ours=(1.0, 1.0), theirs=(1.0,))
