"""Steps that are refused for what they use, each with a form that is not.

Optimizers and schedulers, random numbers, devices, other programs.
"""

import random
import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, optim
from torch.optim import lr_scheduler

from bad_programs.toy import Case, Toy, bad


@bad
def lbfgs(right: bool) -> Case:
    toy = Toy()
    if not right:
        toy.optimizer = optim.LBFGS(toy.model.parameters())
    return toy.train(lambda x, y: toy.model(x).sum())


@bad
def learning_rate_set_in_the_step(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if not right:
            toy.optimizer.param_groups[0]["lr"] *= 0.99
        return toy.update(toy.model(x).sum())

    return toy.case(step)


@bad
def learning_rate_as_a_tensor(right: bool) -> Case:
    toy = Toy()
    lr = 0.1 if right else torch.tensor(0.1)
    toy.optimizer = optim.Adam(toy.model.parameters(), lr=lr)
    return toy.train(lambda x, y: toy.model(x).sum())


@bad
def scheduler_before_the_optimizer(right: bool) -> Case:
    toy = Toy()
    scheduler = lr_scheduler.StepLR(toy.optimizer, 10)

    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            loss = toy.update(toy.model(x).sum())
            scheduler.step()
            return loss
        scheduler.step()
        return toy.update(toy.model(x).sum())

    return toy.case(step)


@bad
def scheduler_that_needs_the_loss(right: bool) -> Case:
    toy = Toy()
    scheduler = lr_scheduler.ReduceLROnPlateau(toy.optimizer)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = toy.update(toy.model(x).sum())
        if not right:
            scheduler.step(loss)
        return loss

    return toy.case(step)


@bad
def loss_scaling_without_update(right: bool) -> Case:
    toy = Toy()
    scaler = torch.amp.GradScaler("cpu")

    def step(x: Tensor, y: Tensor) -> None:
        toy.optimizer.zero_grad()
        scaler.scale(toy.model(x).sum()).backward()
        scaler.step(toy.optimizer)
        if right:
            scaler.update()

    return toy.case(step)


@bad
def seed_in_the_step(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if not right:
            torch.manual_seed(0)
        return F.dropout(toy.model(x))

    return toy.forward(step)


@bad
def a_generator_of_its_own(right: bool) -> Case:
    settings = {} if right else {"generator": torch.Generator()}
    return Toy().forward(lambda x, y: x + torch.randn(16, **settings))


@bad
def random_of_python(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        return x * (torch.rand(()) if right else random.random())

    return Toy().forward(step)


@bad
def numpy_in_the_middle(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return torch.sin(x)
        return torch.from_numpy(np.sin(x.numpy()))

    return Toy().forward(step)


@bad
def autocast_for_another_device(right: bool) -> Case:
    toy = Toy()

    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu" if right else "xpu", dtype=torch.bfloat16):
            return toy.model(x)

    return toy.forward(step)


@bad
def cast_the_model_in_the_step(right: bool) -> Case:
    toy = Toy()
    if right:
        toy.model.bfloat16()

    def step(x: Tensor, y: Tensor) -> Tensor:
        if not right:
            toy.model.bfloat16()
        return toy.model(x.bfloat16())

    return toy.forward(step)


@bad
def traced_module(right: bool) -> Case:
    toy = Toy()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        called = toy.model if right else torch.jit.trace(toy.model, toy.args[0])
    return toy.forward(lambda x, y: called(x))


@bad
def control_flow_op(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Tensor:
        if right:
            return torch.where(x.sum() > 0, x.cos(), x.sin())
        return torch.cond(x.sum() > 0, torch.cos, torch.sin, (x,))

    return Toy().forward(step)


@bad
def unknown_dtype(right: bool) -> Case:
    return Toy().forward(lambda x, y: x.to(torch.int32 if right else torch.uint16))


@bad
def ragged_tensor(right: bool) -> Case:
    def step(x: Tensor, y: Tensor) -> Any:
        return torch.stack([x, x]) if right else torch.nested.nested_tensor([x, x])

    return Toy().forward(step)
