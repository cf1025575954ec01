"""Three steps of common models, laid out over chips, are those of one chip.

In float64 where the model's ops know it: some gradients are zero but for rounding (that of a key's
bias), and Adam blows rounding up to the size of a step.
"""

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch

from emulate import run_plan, run_program
from supernode.capture import capture
from supernode.errors import LayoutError
from supernode.ir import Op
from supernode.ops import Formula, Row
from supernode.ops.formula import alike_but
from supernode.partition import partition
from supernode.report.traffic import totals
from zoo import BATCH, CNNS, ZOO, zoo_step
from zoo_runs import NO_TP, SINGLE, Subject, assert_near

EXPERT_LAYOUTS = (
    "ep=2",
    "ep=4",
    "dp=2,ep=2",
    "fsdp=2,ep=2",
    "ep=2,tp=2",
    "fsdp=2,ep=2,cp=2,tp=2",
    "ep=2,recompute=selective",
)
WITH_EXPERTS = ("mixtral", "qwen3-moe", "deepseek-v3", "gpt-oss")
LAYOUTS = ("dp=2", "fsdp=2", "tp=2", "fsdp=2,tp=2", "micro=2")
QUICK = ("dp=2", "tp=2", "ep=2", "dp=2,ep=2")
"""What `make test` tries; the others are for `make test-all`."""


def _layout(line: str) -> object:
    return pytest.param(line, marks=pytest.mark.slow if line in QUICK else pytest.mark.zoo)


@pytest.mark.parametrize("name", NO_TP)
def test_what_tp_does_not_split_is_refused(name: str):
    made = zoo_step(name)
    program = capture(made.step, made.model, made.optimizer, made.args).program
    with pytest.raises(LayoutError, match=NO_TP[name]):
        partition(program, "tp=2")


def check(name: str, layout: str, batch: int = BATCH, **changes: Any) -> None:
    dtype = torch.float32 if name in SINGLE else torch.float64
    subject = Subject(zoo_step(name, dtype, batch=batch, **changes))
    program = subject.captured.program
    plan = partition(program, layout)
    want = subject.interpreted(lambda values: run_program(program, values))
    assert_near(subject.interpreted(lambda values: run_plan(plan, values)), want, layout)


@pytest.mark.parametrize("name", CNNS)
def test_vision_models_over_the_batch(name: str):
    check(name, "dp=2")


@pytest.mark.parametrize("layout", [_layout(line) for line in LAYOUTS])
@pytest.mark.parametrize("name", ZOO)
def test_models_of_the_zoo(name: str, layout: str):
    if name in NO_TP and "tp" in layout:
        pytest.skip("refused, as the test above says")
    pytest.importorskip("transformers")
    check(name, layout)


@pytest.mark.zoo
@pytest.mark.parametrize("name", ZOO)
def test_stages_of_different_layouts(name: str):
    pytest.importorskip("transformers")
    check(name, "pp=1/dp=2" if name in NO_TP else "pp=dp=2/tp=2,micro=2", batch=8)


@pytest.mark.slow
def test_experts_in_a_stage_of_its_own_layout():
    """Without microbatches no block repeats: all is routed in main."""
    pytest.importorskip("transformers")
    check("mixtral", "pp=1/dp=2")
    check("mixtral", "pp=dp=2/ep=2,micro=2", batch=8)


@pytest.mark.parametrize("layout", [_layout(line) for line in EXPERT_LAYOUTS])
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_experts_over_chips(name: str, layout: str):
    pytest.importorskip("transformers")
    check(name, layout, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ep=2,tp=2", "tp=2,ep=tp"])
def test_experts_with_an_op_that_reads_units_whole(layout: str, monkeypatch: pytest.MonkeyPatch):
    """As if nothing were known of slices with a step: rows and units are moved around them."""
    pytest.importorskip("transformers")
    rows = import_module("supernode.ops.row")._TABLE
    for name, dim in (("aten.slice.Tensor", 1), ("aten.slice_backward", 2)):
        rule = rows[name]

        def whole(op: Op, rule: Row = rule, dim: int = dim) -> Formula:
            known = rule.formula(op)
            return alike_but(op, {int(str(op.args[dim]))}) if "of" in known.whole else known

        monkeypatch.setitem(rows, name, replace(rule, formula=whole, sizes=True))
    check("gpt-oss", layout, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_tokens_do_not_leave_their_chips(name: str):
    """Nor are they gathered where nothing splits the experts: gradients alone are added up."""
    pytest.importorskip("transformers")
    made = zoo_step(name)
    program = capture(made.step, made.model, made.optimizer, made.args).program
    plan = partition(program, "dp=2")
    gradients = sum(param.nbytes for param in made.model.parameters())
    (total,) = totals(plan)
    assert total.collective == "all_reduce"
    assert gradients <= total.sent_bytes <= gradients + 16
