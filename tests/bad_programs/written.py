"""Steps that write where a Program can't, or train what it does not know; with forms that can."""

from typing import Any

import torch
from torch import Tensor, nn, optim

from bad_programs.toy import Case, Toy, bad


@bad
def write_into_an_argument(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            x = x.clone()
        x.mul_(2)
        return toy.model(x)

    return toy.forward(step)


@bad
def write_into_a_closure(right: bool) -> Case:
    toy = Toy()
    total = torch.zeros(())
    toy.model.register_buffer("total", torch.zeros(()))

    def step(x: Tensor, y: Tensor) -> None:
        (toy.model.get_buffer("total") if right else total).add_(x.sum())

    return toy.forward(step)


@bad
def write_into_an_expanded_tensor(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        wide = torch.zeros(1, 16).expand(8, 16)
        if right:
            wide = wide.clone()
        return wide.add_(x)

    return Toy().forward(step)


@bad
def write_into_windows(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        windows = x.clone().unfold(1, 2, 1)
        if right:
            windows = windows.clone()
        return windows.add_(1)

    return Toy().forward(step)


class Averaging(nn.Module):
    """Keeps a running mean as a plain attribute."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        if right:
            self.register_buffer("mean", torch.zeros(16))
        else:
            self.mean = torch.zeros(16)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


@bad
def remember_in_an_attribute(right: bool) -> Case:
    model = Averaging(right)
    return (lambda x: model(x)), model, (), (torch.ones(8, 16),)


@bad
def replace_the_data_of_a_parameter(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        weight = toy.model[0].weight
        if right:
            with torch.no_grad():
                weight.copy_(torch.zeros(32, 16))
        else:
            weight.data = torch.zeros(32, 16)
        return toy.model(x).detach()

    return toy.forward(step)


@bad
def replace_a_parameter(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            with torch.no_grad():
                toy.model[0].weight.copy_(torch.zeros(32, 16))
        else:
            toy.model[0].weight = nn.Parameter(torch.zeros(32, 16))
        return toy.model(x).detach()

    return toy.forward(step)


@bad
def result_of_another_shape_in_place(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        return torch.add(x, x, out=torch.empty(8 if right else 1, 16))

    return Toy().forward(step)


@bad
def share_memory(right: bool) -> Case:
    toy = Toy()
    toy.model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    if right:
        toy.model[1].weight = toy.model[0].weight
    else:
        toy.model[1].weight.data = toy.model[0].weight.data
    toy.optimizer = optim.SGD(toy.model.parameters(), lr=0.1)
    return toy.train(lambda x, y: toy.model(x).sum())


@bad
def train_a_tensor_of_a_closure(right: bool) -> Case:
    toy = Toy()
    extra = nn.Linear(16, 16)
    if right:
        whole = nn.ModuleList([toy.model, extra])
        step, _, optimizer, args = toy.train(lambda x, y: toy.model(extra(x)).sum())
        return step, whole, optimizer, args
    return toy.train(lambda x, y: toy.model(extra(x)).sum())


@bad
def optimize_what_is_not_of_the_model(right: bool) -> Case:
    toy = Toy()
    if not right:
        toy.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(4))]})
    return toy.train(lambda x, y: toy.model(x).sum())


@bad
def gradient_left_on_an_argument(right: bool) -> Case:
    toy = Toy()
    toy.args = torch.ones(8, 16, requires_grad=True), toy.args[1]

    def step(x: Tensor, y: Tensor) -> Any:
        loss = toy.model(x).sum()
        return torch.autograd.grad(loss, x) if right else loss.backward()

    return toy.case(step)


@bad
def wrapped_for_several_devices(right: bool) -> Case:
    toy = Toy()
    if not right:
        toy.model = nn.DataParallel(toy.model)  # type: ignore[assignment]
    return toy.forward(lambda x, y: toy.model(x))


@bad
def lazy_module(right: bool) -> Case:
    toy = Toy()
    toy.model = nn.Sequential(nn.LazyLinear(4))
    if right:
        toy.model(toy.args[0])
    return toy.forward(lambda x, y: toy.model(x))


@bad
def sparse_gradients(right: bool) -> Case:
    model = nn.Embedding(16, 4, sparse=not right)
    return (lambda x: model(x).sum().backward()), model, (), (torch.zeros(2, dtype=torch.int64),)
