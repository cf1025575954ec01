"""Common models in bfloat16 and under autocast, laid out over chips: no worse than on one."""

import pytest

from emulate import run_plan
from supernode.partition import partition
from zoo import ZOO
from zoo_precision import Precision, assert_as_good
from zoo_runs import NO_TP

LAYOUTS = ("dp=2", "fsdp=2", "tp=2")
QUICK = ("llama", "resnet")
"""Convolutions only: tensor parallel has nothing to split, and says so."""


def check(name: str, precision: Precision) -> None:
    pytest.importorskip("transformers")
    subject = precision.subject(name)
    layouts = LAYOUTS[:2] if name in NO_TP else LAYOUTS
    plans = {layout: partition(subject.captured.program, layout) for layout in layouts}
    found = {
        layout: subject.interpreted(lambda values, plan=plan: run_plan(plan, values))
        for layout, plan in plans.items()
    }
    truth, want = precision.truth(name), subject.eager()
    for layout, got in found.items():
        assert_as_good(got, want, truth, layout)


@pytest.mark.slow
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", QUICK)
def test_some_models(name: str, precision: Precision) -> None:
    check(name, precision)


@pytest.mark.zoo
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", [n for n in ZOO if n not in QUICK])
def test_models(name: str, precision: Precision) -> None:
    check(name, precision)
