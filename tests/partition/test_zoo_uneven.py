"""Three steps of common models on three chips, which divide neither batch nor heads, are those of
one chip; what can't be split so is refused with the reason."""

import re
from functools import partial

import pytest
import torch

from emulate import run_plan, run_program
from supernode.errors import LayoutError
from supernode.partition import partition
from zoo import ZOO, zoo_step
from zoo_runs import SINGLE, Subject, assert_near

BATCH = 8
LAYOUTS = ("dp=3", "fsdp=3", "tp=3", "dp=3,micro=2", "fsdp=2,micro=3")
QUICK = ("llama", "resnet")
MORE_UNITS = {
    name: {"num_key_value_heads": 4}
    for name in ("llama", "mixtral", "qwen3-moe", "gpt-oss", "gemma3")
} | {"mamba2": {"n_groups": 4}}
"""As in the zoo they have keys and values, or states, for two groups of heads."""
TOO_FEW = {
    name: r"tp=3 leaves chips without a part of dim 0 of .*, which splits in 2 equal units$"
    for name in (*MORE_UNITS, "qwen2.5-vl", "paligemma")
} | {"unet": "tp=3 splits nothing"}


def subject(name: str) -> Subject:
    pytest.importorskip("transformers")
    dtype = torch.float32 if name in SINGLE else torch.float64
    return Subject(zoo_step(name, dtype, batch=BATCH, **MORE_UNITS.get(name, {})))


def marked(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.zoo)


@pytest.mark.parametrize("name", [marked(name) for name in ZOO])
def test_three_chips_train_as_one(name: str) -> None:
    found = subject(name)
    program = found.captured.program
    want = found.interpreted(lambda values: run_program(program, values))
    for layout in LAYOUTS:
        if "tp" in layout and name in TOO_FEW and name not in MORE_UNITS:
            continue
        plan = partition(program, layout)
        assert plan.variants or layout not in ("dp=3", "fsdp=3"), "eight samples are uneven"
        assert_near(found.interpreted(partial(run_plan, plan)), want, layout)


@pytest.mark.slow
def test_twelve_heads_on_eight_chips_in_microbatches() -> None:
    pytest.importorskip("transformers")
    found = Subject(zoo_step("gpt2", torch.float64, batch=BATCH, n_head=12, n_embd=48))
    program = found.captured.program
    plan = partition(program, "dp=2,tp=8,micro=2")
    assert plan.starts == (("tp", (4,)),)
    want = found.interpreted(lambda values: run_program(program, values))
    assert_near(found.interpreted(lambda values: run_plan(plan, values)), want, plan.layout)


@pytest.mark.zoo
@pytest.mark.parametrize("name", TOO_FEW)
def test_heads_too_few_for_the_chips_are_refused(name: str) -> None:
    pytest.importorskip("transformers")
    made = zoo_step(name)
    program = Subject(made).captured.program
    with pytest.raises(LayoutError) as caught:
        partition(program, "tp=3")
    assert re.match(TOO_FEW[name], caught.value.wrong)
