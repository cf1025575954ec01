"""Three real chips, which divide neither batch nor heads, train as plain PyTorch does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import supernode as sn
from numerics import assert_close
from zoo import ZooStep, zoo_step
from zoo_runs import near

LAYOUTS = ("tp=3", "dp=3,micro=2", "fsdp=3", "micro=3,tp=3")
"""Each goes on from the checkpoint of the one before."""
STEPS = 2


@pytest.fixture(scope="module")
def three() -> Iterator[sn.Node]:
    with sn.connect("local:3") as node:
        yield node


def llama() -> ZooStep:
    """Four heads and eight sequences, in float64: Adam blows up the rounding of tiny gradients."""
    pytest.importorskip("transformers")
    return zoo_step("llama", torch.float64, batch=8, num_key_value_heads=4)


@pytest.mark.slow
def test_uneven_layouts_go_on_from_each_other(three: sn.Node, tmp_path: Path) -> None:
    want, made = llama(), llama()
    for number, layout in enumerate(LAYOUTS):
        made = llama()
        step = three.compile(made.step, made.model, made.optimizer, layout=layout)
        step.prepare(*made.args)
        if number:
            step.load(tmp_path)
        for _ in range(STEPS):
            loss, truth = step(*made.args), want.step(*want.args)
            assert near(loss, truth), f"{layout}: {loss}, expected {truth}"
        step.save(tmp_path, (number + 1) * STEPS)
        step.pull()
        for got, right in zip(made.model.parameters(), want.model.parameters(), strict=True):
            assert near(got.detach(), right.detach()), layout
    for name, value in want.optimizer.state_dict()["state"].items():
        assert near(made.optimizer.state_dict()["state"][name]["exp_avg"], value["exp_avg"])


@pytest.mark.slow
def test_stages_of_chips_with_unequal_pieces() -> None:
    """Layers of 9 and 15 units, and seven samples, on two chips a stage."""

    def job() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Tensor], Tensor]]:
        torch.manual_seed(0)
        pairs = [(nn.Linear(9, 15), nn.Tanh(), nn.Linear(15, 9)) for _ in range(2)]
        model = nn.Sequential(*(layer for pair in pairs for layer in pair))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: Tensor) -> Tensor:
            loss = (model(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        return model, optimizer, step

    x = torch.randn(7, 9)
    with sn.connect("local:4") as node:
        for layout in ("pp=2,fsdp=2", "pp=2,tp=2"):
            (model, optimizer, step), (want, _, plain) = job(), job()
            many = node.compile(step, model, optimizer, layout=layout)
            for _ in range(STEPS):
                assert_close(many(x), plain(x), reduced=64)
            many.pull()
            for got, right in zip(model.parameters(), want.parameters(), strict=True):
                assert_close(got, right, reduced=64)
