"""Random numbers on real chips: the same for any number of them, repeatable, part of the state."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import supernode as sn
from drawn import Drawing
from numerics import assert_close

X = torch.randn(8, 4, 16, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32, bias=False), nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.up(x).relu(), 0.3, self.training)
        return F.dropout(self.down(hidden), 0.1, self.training)


def _job(seed: int = 3) -> tuple[Any, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def train_step(x: Tensor) -> Tensor:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return train_step, model, optimizer


def _plain(steps: int) -> tuple[list[Tensor], nn.Module]:
    step, model, _ = _job()
    losses: list[Tensor] = []
    for number in range(steps):
        with Drawing(3, number):
            losses.append(step(X))
    return losses, model


@pytest.fixture(scope="module")
def two():
    with sn.connect("cpu:2") as node:
        yield node


@pytest.fixture
def gpu():
    with sn.connect("cuda:1") as node:
        yield node


@pytest.mark.parametrize("layout", ["dp=2", "fsdp=2", "tp=2,sp", "cp=2", "dp=2,micro=2"])
def test_two_chips_train_as_plain_pytorch_with_the_same_masks(two, layout: str) -> None:
    check(two, layout)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["", "micro=2"])
def test_a_gpu_trains_with_the_masks_of_processors(gpu, layout: str) -> None:
    check(gpu, layout)


def check(node, layout: str) -> None:
    losses, model = _plain(3)
    train_step, ours, optimizer = _job()
    step = node.compile(train_step, ours, optimizer, layout=layout)
    for loss in losses:
        assert_close(step(X), loss, reduced=512)
    step.pull()
    for name, param in model.named_parameters():
        assert_close(ours.get_parameter(name).detach(), param.detach(), reduced=512)


def test_one_seed_gives_one_run_and_another_seed_another(two) -> None:
    runs: list[list[float]] = []
    for seed in (3, 3, 4):
        train_step, model, optimizer = _job()
        torch.manual_seed(seed)
        step = two.compile(train_step, model, optimizer, layout="dp=2")
        runs.append([float(step(X)) for _ in range(3)])
    assert runs[0] == runs[1]
    assert not set(runs[1]) & set(runs[2])


def test_a_saved_state_goes_on_with_the_next_numbers(two) -> None:
    train_step, model, optimizer = _job()
    step = two.compile(train_step, model, optimizer, layout="dp=2")
    step(X)
    saved = copy.deepcopy(step.state_dict())
    assert (saved["random.seed"], saved["random.step"]) == (3, 1)
    want = [float(step(X)) for _ in range(2)]
    train_step, model, optimizer = _job(seed=9)
    other = two.compile(train_step, model, optimizer, layout="dp=2").prepare(X)
    other._loaded.push(saved)
    assert [float(other(X)) for _ in range(2)] == want


def test_pull_and_push_of_the_weights_do_not_draw_again_what_was_drawn(two) -> None:
    losses, _ = _plain(3)
    train_step, model, optimizer = _job()
    step = two.compile(train_step, model, optimizer, layout="dp=2")
    for loss in losses:
        assert_close(step(X), loss, reduced=512)
        step.pull()
        step.push()


def test_a_step_for_evaluation_draws_nothing(two) -> None:
    _, model, _ = _job()
    model.eval()
    evaluate = two.compile(lambda x: model(x), model, layout="dp=2")
    assert_close(evaluate(X), model(X).detach(), reduced=32)
    assert "random.seed" not in evaluate.state_dict()
