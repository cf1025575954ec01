"""A tp axis of more chips than there are heads of keys and values: chips share them, and the step
is that of one chip."""

from typing import Any

import pytest
import torch

from emulate import run_plan, run_program
from supernode.errors import LayoutError
from supernode.partition import partition
from supernode.partition.halves import joined
from supernode.plan import Layout, Plan
from supernode.report.traffic import totals
from zoo import BATCH, TOKENS, zoo_step
from zoo_runs import SINGLE, Subject, assert_near

WIDTH, LAYERS, FLOAT = 32, 2, 8
HIDDEN = BATCH * TOKENS * WIDTH * FLOAT
"""An activation between two layers."""
HEAD = BATCH * TOKENS * 8 * FLOAT
"""One head of keys."""


def subject(name: str, **changes: Any) -> Subject:
    pytest.importorskip("transformers")
    dtype = torch.float32 if name in SINGLE else torch.float64
    return Subject(zoo_step(name, dtype, **changes))


def check(found: Subject, layout: str) -> Plan:
    program = found.captured.program
    plan = partition(program, layout)
    want = found.interpreted(lambda values: run_program(program, values))
    assert_near(found.interpreted(lambda values: run_plan(plan, values)), want, layout)
    return plan


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tp=4", "tp=4,sp"])
def test_chips_share_heads_of_keys(layout: str) -> None:
    """Two heads of keys on four chips: each pair shares one, and its queries are apart."""
    found = subject("llama")
    plan = check(found, layout)
    homes = {
        port.name.removeprefix("model.layers.0.self_attn."): str(home)
        for port, home in zip(plan.program.inputs, plan.inputs, strict=True)
    }
    assert homes["q_proj.weight"] == "[tp.outer*tp.inner:2, -]"
    assert homes["k_proj.weight"] == homes["v_proj.weight"] == "[tp.outer, -]"
    assert homes["o_proj.weight"] == "[-, tp.outer*tp.inner:2]"

    over: dict[str, float] = {}
    for each in totals(plan):
        over[each.axis] = over.get(each.axis, 0.0) + each.sent_bytes
    # As without sharing: four activations a layer, the embedding and the head; what is a loss.
    activations = (LAYERS * 4 + 2) * HIDDEN * 2 * 3 / 4
    small = 4 * BATCH * TOKENS * FLOAT * 2 * 3 / 4 + 64
    assert over["tp"] <= activations + small if "sp" not in layout else 1.05 * activations + small
    # The gradients of shared keys and values, over two chips; half of one of them twice.
    assert over["tp.inner"] <= LAYERS * 2.5 * HEAD
    assert {*over} == {"tp", "tp.inner"}


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {}, "dp=2,tp=4,micro=2"),
    ("llama", {}, "fsdp=2,tp=4,cp=2,sp"),
    ("llama", {}, "pp=tp=4/dp=2+tp=2,micro=2"),
    ("llama", {"num_key_value_heads": 1}, "tp=4"),
    ("llama", {"num_attention_heads": 8, "num_key_value_heads": 2}, "tp=8"),
    ("llama", {"num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 48}, "tp=3"),
    ("llama", {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 48}, "tp=4,sp"),
    ("qwen3-moe", {}, "ep=2,tp=4"),
    ("mixtral", {}, "tp=4"),
    ("gemma3", {}, "tp=4,recompute=selective"),
]


@pytest.mark.parametrize(
    ("name", "changes", "layout"),
    [pytest.param(*case, marks=pytest.mark.zoo, id=f"{case[0]}-{case[2]}") for case in CASES],
)
def test_sharing_in_other_layouts(name: str, changes: dict[str, Any], layout: str) -> None:
    """One head of keys, three heads of queries on two chips, more axes, experts."""
    check(subject(name, batch=4, **changes), layout)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "most"), [("tp=8", 2), ("tp=4,ep=tp", 2)])
def test_more_chips_than_heads_of_queries(layout: str, most: int) -> None:
    """Nor are keys shared where the axis splits whole experts."""
    with pytest.raises(LayoutError, match=f"splits in {most} equal units") as caught:
        partition(subject("mixtral").captured.program, layout)
    assert caught.value.fix == f"use sizes whose product is at most {most}"


def test_what_both_halves_cut_alike_is_cut_by_both_at_once() -> None:
    halves = ("tp.outer", "tp.inner")
    both = Layout((("dp", *halves), ()), (("dp", "sum"),))
    assert str(joined(both, "tp")) == "[dp*tp, -] sum(dp)"
    assert str(joined(Layout(((), ()), ((halves[0], "sum"), (halves[1], "sum"))), "tp")) == (
        "[-, -] sum(tp)"
    )
    assert joined(Layout(((halves[0],), (halves[1],))), "tp") is None
    assert joined(Layout((("tp.outer/3", "tp.inner/3"),)), "tp") is None
    assert joined(Layout((("tp.outer", "tp.inner:2"),)), "tp") is None
    assert joined(Layout(((halves[0],),), ((halves[1], "sum"),)), "tp") is None
