"""Pipelines of models with more than one way through them: five steps are those of plain PyTorch.

In float64, as in tests/partition/test_zoo.py: some gradients are zero but for rounding, and Adam
blows rounding up to the size of a step.
"""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
import torch

from supernode import connect
from supernode.api import Node
from supernode.errors import ChipFailed
from tied import tied
from zoo import ZooStep, zoo_step

STEPS = 5


def of_zoo(name: str) -> Callable[[], ZooStep]:
    return lambda: zoo_step(name, torch.float64)


CASES: dict[str, Callable[[], ZooStep]] = {
    "tied": tied,
    "encoder-decoder": of_zoo("t5"),
    "skips": of_zoo("unet"),
}
MICRO = (
    "pp=2",
    "pp=2,micro=2,schedule=gpipe",
    "pp=2,micro=2",
    "pp=2,vp=2,micro=2",
    "pp=2,micro=2,schedule=zb",
)
ON_TWO = {"tied": MICRO, "encoder-decoder": MICRO, "skips": ("pp=2",)}
ON_FOUR = {
    "tied": (
        *("pp=2,dp=2", "pp=2,fsdp=2,micro=2", "pp=4,micro=4,schedule=zb"),
        *("pp=cp=2/tp=2,micro=2", "pp=1/dp=3", "pp=tp=2/fsdp=2,offload=all@peers"),
    ),
    "encoder-decoder": ("pp=2,dp=2", "pp=2,fsdp=2", "pp=4,micro=2"),
    "skips": ("pp=2,dp=2", "pp=2,fsdp=2"),
}


@pytest.fixture(scope="module")
def two() -> Iterator[Node]:
    with connect("local:2") as node:
        yield node


@pytest.fixture(scope="module")
def four() -> Iterator[Node]:
    with connect("local:4") as node:
        yield node


def check(node: Node, name: str, layouts: tuple[str, ...]) -> None:
    if name == "encoder-decoder":
        pytest.importorskip("transformers")
    want = CASES[name]()
    losses = [want.step(*want.args) for _ in range(STEPS)]
    for layout in layouts:
        got = CASES[name]()
        step = node.compile(got.step, got.model, got.optimizer, layout=layout)
        for loss in losses:
            torch.testing.assert_close(step(*got.args), loss, rtol=1e-6, atol=1e-8)
        step.pull()
        state = want.model.state_dict()
        for key, value in got.model.state_dict().items():
            torch.testing.assert_close(
                value, state[key], rtol=1e-5, atol=1e-6, msg=f"{layout} {key}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_five_steps_on_two_chips(two: Node, name: str) -> None:
    check(two, name, ON_TWO[name])


@pytest.mark.slow
def test_a_killed_chip_of_a_stage_of_its_own_layout_loses_nothing() -> None:
    made = tied()
    with connect("local:3") as node:
        step = node.compile(made.step, made.model, made.optimizer, layout="pp=1/dp=2,micro=2")
        for _ in range(2):
            step(*made.args)
        kept = step.state_dict()
        os.kill(node._chips.pids[2], signal.SIGKILL)
        with pytest.raises(ChipFailed, match="chip 2 was ended by SIGKILL"):
            step(*made.args)
        after = step.state_dict()
        assert all(torch.equal(kept[name], after[name]) for name in kept)


@pytest.mark.zoo
@pytest.mark.parametrize("name", CASES)
def test_five_steps_on_four_chips(four: Node, name: str) -> None:
    check(four, name, ON_FOUR[name])
