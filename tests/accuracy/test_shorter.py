"""Steps of many layers and microbatches follow from short ones: to the last digit, but where what
is sent overlaps with other layers or stages than in the short ones."""

from dataclasses import replace

import pytest

from supernode.accuracy.case import Case, Step
from supernode.accuracy.predict import Predictor
from supernode.accuracy.shorter import shortened
from supernode.machine import load_machine
from supernode.models import Shape, recipe

SMALL = {"layers": 9, "hidden": 256, "heads": 4, "kv_heads": 2, "ffn": 512, "vocab": 1024}
MIXTURE = {"experts": 8, "topk": 2, "expert_ffn": 128}


def step(layout: str, batch: int, phase: str = "train") -> Step:
    sizes = SMALL | (MIXTURE if "ep=" in layout else {})
    shape = recipe("llama3-8b").with_shape(sizes).shape
    assert shape is not None
    return Step(
        shape=shape,
        dtype="bfloat16",
        phase=phase,
        batch=batch,
        sequence=128,
        layout=layout,
        chips=4,
    )


WINDOWED = Shape(
    family="gpt-oss",
    layers=10,
    hidden=256,
    heads=4,
    vocab=1024,
    ffn=128,
    experts=8,
    topk=2,
    window=16,
)
"""Whose layers are of two kinds, in turn."""


@pytest.mark.parametrize(
    ("asked", "within"),
    [
        pytest.param(step("zero1=2,tp=2,sp,micro=12", 24), 1e-6, marks=pytest.mark.slow),
        (step("fsdp=4", 4), 1e-6),
        pytest.param(step("ep=4,micro=8", 32), 1e-3, marks=pytest.mark.zoo),
        (step("dp=2,tp=2", 4, "decode"), 1e-6),
        pytest.param(step("pp=2,dp=2,micro=16", 32), 1e-2, marks=pytest.mark.slow),
        (replace(step("tp=4", 4, "decode"), shape=WINDOWED), 1e-6),
        pytest.param(step("pp=4,vp=2,micro=24", 24), 1e-2, marks=pytest.mark.zoo),
    ],
    ids=lambda case: case.layout if isinstance(case, Step) else "",
)
def test_a_long_step_is_a_sum_of_short_ones(asked: Step, within: float):
    parts = shortened(asked)
    assert len(parts) > 1
    assert sum(often for often, _ in parts) == pytest.approx(1)
    predictor = Predictor(None)
    got = predictor.predict(case(asked))
    want = predictor.simulated(asked, load_machine("hgx-h100")).step_s
    assert got.time_s == pytest.approx(want, rel=within)


def case(asked: Step) -> Case:
    return Case(
        id="long",
        source="test",
        regime="training-dense",
        machine="hgx-h100",
        measured_s=1.0,
        parts=((1.0, asked),),
    )


def test_a_short_step_stays_as_it_is():
    short = step("fsdp=4", 4)
    few = replace(short, shape=replace(short.shape, layers=5))
    assert shortened(few) == [(1.0, few)]


def test_the_microbatch_stays_as_it_is():
    asked = step("dp=2,micro=64", 256)
    assert {each.batch // int(each.layout[11:]) for _, each in shortened(asked)} == {4}
