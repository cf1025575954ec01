"""Steps whose path or shapes depend on data, each with a form that does not."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from bad_programs.toy import Case, Toy, bad


@bad
def branch_on_the_loss(right: bool) -> Case:
    toy = Toy()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        found = F.cross_entropy(toy.model(x), y)
        if right:
            return torch.where(found > 1, found * 2, found)
        return found * 2 if found > 1 else found

    return toy.train(loss)


@bad
def loop_until_small(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return x / x.norm().clamp(min=1)
        while x.norm() > 1:
            x = x / 2
        return x

    return Toy().forward(step)


@bad
def compare_an_item(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Any:
        total = x.sum().item()
        if right:
            return total
        return x if total > 3 else -x

    return Toy().forward(step)


@bad
def index_by_an_item(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return x.index_select(0, y[:1])
        return x[int(y[0])]

    return Toy().forward(step)


@bad
def slice_up_to_an_item(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return x * (torch.arange(8) < y.max())[:, None]
        return x[: y.max().item()]

    return Toy().forward(step)


class Gated(nn.Module):
    """A gate that opens on data, deep in a model."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right = right
        self.proj = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        if self.right:
            return torch.where(x.mean() > 0, self.proj(x), x)
        if x.mean() > 0:
            return self.proj(x)
        return x


@bad
def branch_inside_a_module(right: bool) -> Case:
    toy = Toy()
    toy.model.insert(1, nn.Sequential(nn.Identity(), Gated(right)))
    return toy.forward(lambda x, y: toy.model(x))


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, right: bool) -> Tensor:
        ctx.right = right
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        if ctx.right:
            return gradient.clamp(max=1), None
        return (gradient / 2 if gradient.max() > 1 else gradient), None


@bad
def branch_in_a_backward_pass(right: bool) -> Case:
    toy = Toy()
    return toy.train(lambda x, y: F.cross_entropy(Clipped.apply(toy.model(x), right), y))


@bad
def branch_in_a_hook(right: bool) -> Case:
    toy = Toy()

    def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        if right:
            return torch.where(out.isnan().any(), torch.zeros_like(out), out)
        return torch.zeros_like(out) if out.isnan().any() else out

    toy.model[0].register_forward_hook(hook)
    return toy.forward(lambda x, y: toy.model(x))


@bad
def compare_two_tensors(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return torch.where((x == x.relu()).all(), x, -x)
        return x if torch.equal(x, x.relu()) else -x

    return Toy().forward(step)


@bad
def skip_a_scheduler_with_the_update(right: bool) -> Case:
    toy = Toy()
    scheduler = optim.lr_scheduler.StepLR(toy.optimizer, 10)

    def step(x: Tensor, y: Tensor) -> Tensor:
        F.cross_entropy(toy.model(x), y).backward()
        norm = nn.utils.clip_grad_norm_(toy.model.parameters(), 1.0)
        if right:
            if norm.isfinite():
                toy.optimizer.step()
            scheduler.step()
        elif norm.isfinite():
            toy.optimizer.step()
            scheduler.step()
        toy.optimizer.zero_grad()
        return norm

    return toy.case(step)


@bad
def print_a_loss(right: bool) -> Case:
    toy = Toy()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        found = F.cross_entropy(toy.model(x), y)
        if not right:
            print(f"loss {found:.3f}")
        return found

    return toy.train(loss)


@bad
def keep_rows_by_a_mask(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        mask = y > 1
        if right:
            return torch.where(mask[:, None], x, 0.0).sum(0)
        return x[mask].sum(0)

    return Toy().forward(step)


@bad
def repeat_by_data(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        size = 16 if right else None
        return torch.repeat_interleave(x, y, dim=0, output_size=size)

    return Toy().forward(step)


@bad
def count_classes(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return torch.zeros(4, dtype=torch.int64).scatter_add_(0, y, torch.ones_like(y))
        return torch.bincount(y)

    return Toy().forward(step)


@bad
def positions_up_to_an_item(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        return torch.arange(8 if right else y.max().item())

    return Toy().forward(step)
