"""Rows hold on torch's own sample inputs, and the page that says how far these reach is current."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ops.calls import Sample
from ops.coverage import PER_OPERATOR, PER_ROW, Coverage, cover, degenerate
from ops.prove import Refuted
from supernode.ir import Op
from supernode.ops import Formula, Row, table
from supernode.ops.formula import alike_but
from supernode.ops.row import linear_in

pytest.importorskip("expecttest")  # what torch's test database imports

from ops import opinfo

ROOT = Path(__file__).resolve().parents[2]


@cache
def covered(name: str) -> Coverage:
    return cover(table()[name], opinfo.calls(PER_OPERATOR, PER_ROW).get(name, []))


@pytest.mark.parametrize("name", sorted(table()))
def test_row_is_true_of_torch_s_samples(name: str):
    found = covered(name)
    assert found.split <= found.claimed


def test_most_rows_are_reached_and_each_kind_of_claim():
    """Of torch's ops: those of our own (`local.`, `random.`) are in nobody's database."""
    names = [name for name in table() if name.startswith("aten.")]
    every = [covered(name) for name in names if name not in opinfo.UNINITIALISED]
    assert sum(found.samples > 0 for found in every) > 0.9 * len(every)
    assert min(sum(getattr(f, kind) > 0 for f in every) for kind in ("split", "linear")) > 80
    assert sum(found.expanded > 0 for found in every) > 10


@pytest.mark.zoo
def test_rows_are_true_of_many_more_samples():
    for name, samples in opinfo.calls(4 * PER_OPERATOR, 10 * PER_ROW).items():
        cover(table()[name], samples)


def _freed(name: str) -> Row:
    """The row of an op that claims all of its dims to be free."""

    def rule(op: Op) -> Formula:
        return replace(table()[name].formula(op), whole=frozenset())

    return replace(table()[name], formula=rule)


def _planted(name: str, **wrong: Any) -> Row:
    return replace(table()[name], **wrong)


WRONG: dict[str, Callable[[], Row]] = {
    "aten._softmax": lambda: _freed("aten._softmax"),
    "aten.native_layer_norm": lambda: _freed("aten.native_layer_norm"),
    "aten.native_batch_norm_backward": lambda: _freed("aten.native_batch_norm_backward"),
    "aten.convolution": lambda: _freed("aten.convolution"),
    "aten.relu": lambda: _planted("aten.relu", linear=linear_in((0,))),
    "aten.scatter_add": lambda: _planted("aten.scatter_add", linear=linear_in((0,))),
    "aten.gather": lambda: _planted("aten.gather", formula=lambda op: alike_but(op, ())),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_row_is_caught_on_torch_s_samples(name: str):
    with pytest.raises(Refuted):
        cover(WRONG[name](), opinfo.calls(PER_OPERATOR, PER_ROW)[name])


def test_what_can_not_be_compared_is_left_out():
    samples = opinfo.calls(PER_OPERATOR, PER_ROW)
    left_out = [(name, each) for name in samples for each in samples[name] if degenerate(each)]
    assert 0 < len(left_out) < 0.05 * sum(map(len, samples.values()))


def test_samples_are_no_two_alike_and_given_once():
    for samples in opinfo.calls(PER_OPERATOR, PER_ROW).values():
        assert len(samples) <= PER_ROW
        assert all(isinstance(each, Sample) for each in samples)


def test_the_page_of_coverage_is_current():
    spec = importlib.util.spec_from_file_location("op_coverage", ROOT / "tools" / "op_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = tool.PAGE.read_text(encoding="utf-8")
    if tool.VERSION not in written:
        pytest.skip(f"the page is of another torch than {torch.__version__}")
    found = {name: covered(name) for name in table()}
    assert written == tool.page(found), "run `python tools/op_coverage.py --write`"
