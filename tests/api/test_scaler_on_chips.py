"""Loss scaling on real chips: as plain PyTorch, pulled back, and in checkpoints."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import supernode as sn
from numerics import assert_close


class Job:
    """A small model whose third batch has gradients that are no numbers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, eps=1e-3)
        self.scaler = GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def train_step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(self.model(x), y)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return loss.detach()


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(8, 16, generator=generator)
    x[7, 3] = float("inf") if number == 2 else 0.0
    return x, torch.randint(8, (8,), generator=generator)


@pytest.mark.slow
def test_loss_scaling_on_chips(tmp_path: Path) -> None:
    plain, ours, later = Job(), Job(), Job()
    for number in range(5):
        plain.train_step(*_batch(number))
    with sn.connect("cpu:2") as node:
        step = node.compile(ours.train_step, ours.model, ours.optimizer, layout="fsdp=2")
        for number in range(3):
            step(*_batch(number))
        step.pull()
        assert ours.scaler.get_scale() == 8.0
        step.save(tmp_path, 3)
        other = node.compile(later.train_step, later.model, later.optimizer, layout="tp=2")
        other.prepare(*_batch(0)).load(tmp_path)
        for number in range(3, 5):
            other(*_batch(number))
        other.pull()
    assert later.scaler.state_dict() == plain.scaler.state_dict()
    assert plain.scaler.get_scale() == 16.0
    for got, want in zip(later.model.parameters(), plain.model.parameters(), strict=True):
        assert_close(got, want, reduced=256)
