"""Experts over real worker processes: three steps give what one chip gives in plain PyTorch."""

import pytest

import supernode as sn
from moe import MoeStep, moe_step
from numerics import assert_close
from zoo import ZooStep, zoo_step

STEPS = 3


def trained_alike(
    want: MoeStep | ZooStep, got: MoeStep | ZooStep, node: sn.Node, line: str
) -> None:
    step = node.compile(got.step, got.model, got.optimizer, layout=line)
    for _ in range(STEPS):
        assert_close(step(*got.args), want.step(*want.args), reduced=4096)
    step.pull()
    for new, old in zip(got.model.parameters(), want.model.parameters(), strict=True):
        assert_close(new, old, reduced=4096)


@pytest.mark.slow
def test_tokens_go_to_their_experts_and_come_back() -> None:
    with sn.connect("local:4") as node:
        lines = ("ep=4", "dp=2,ep=2", "ep=2,tp=2", "dp=2,tp=2,ep=tp", "pp=ep=2/dp=2,micro=2")
        for line in lines:
            trained_alike(moe_step(layers=2), moe_step(layers=2), node, line)
        trained_alike(moe_step(batch=7), moe_step(batch=7), node, "dp=2,ep=2")
        trained_alike(moe_step(experts=6), moe_step(experts=6), node, "ep=4")


@pytest.mark.slow
@pytest.mark.parametrize("top", [1, 2])
def test_an_expert_may_have_all_tokens_and_others_none(top: int) -> None:
    towards = (0.0, 90.0, 0.0, -90.0)
    with sn.connect("local:4") as node:
        made = [moe_step(layers=2, top=top, towards=towards) for _ in range(2)]
        trained_alike(*made, node, "ep=4")


@pytest.mark.slow
def test_a_published_mixture_of_experts() -> None:
    pytest.importorskip("transformers")
    with sn.connect("local:4") as node:
        trained_alike(zoo_step("qwen3-moe"), zoo_step("qwen3-moe"), node, "ep=2,tp=2")
