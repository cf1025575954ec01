"""Calls of a compiled step that are refused or fail, each with one that works."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

from bad_programs.toy import Toy
from supernode.api import Node, Step, connect

Act = Callable[[], Any]
PROGRAMS: dict[str, Callable[[Node, bool], Act]] = {}


def bad(make: Callable[[Node, bool], Act]) -> Callable[[Node, bool], Act]:
    PROGRAMS[make.__name__] = make
    return make


def compiled(node: Node, toy: Toy, layout: str = "dp=2") -> Step:
    step, model, optimizer, args = toy.train(lambda x, y: toy.model(x).square().mean())
    return node.compile(step, model, optimizer, layout=layout, name="train").prepare(*args)


@bad
def another_shape(node: Node, right: bool) -> Act:
    step = compiled(node, Toy())
    x, y = Toy().args
    return lambda: step(x if right else x[:4], y)


@bad
def another_dtype(node: Node, right: bool) -> Act:
    step = compiled(node, Toy())
    x, y = Toy().args
    return lambda: step(x if right else x.double(), y)


@bad
def an_argument_too_few(node: Node, right: bool) -> Act:
    step = compiled(node, Toy())
    args = Toy().args
    return lambda: step(*(args if right else args[:1]))


@bad
def another_number(node: Node, right: bool) -> Act:
    step = node.compile(lambda x, scale: x * scale, layout="dp=2").prepare(torch.ones(8, 2), 2)
    return lambda: step(torch.ones(8, 2), 2 if right else 3)


@bad
def an_argument_without_data(node: Node, right: bool) -> Act:
    step = compiled(node, Toy())
    x, y = Toy().args
    return lambda: step(x if right else x.to("meta"), y)


@bad
def a_changed_setting(node: Node, right: bool) -> Act:
    toy = Toy()
    step = compiled(node, toy)
    toy.optimizer.param_groups[0]["lr" if right else "weight_decay"] = 0.01
    return lambda: step(*toy.args)


@bad
def a_changed_mode(node: Node, right: bool) -> Act:
    toy = Toy()
    step = compiled(node, toy)
    toy.model.train(right)
    return lambda: step(*toy.args)


@bad
def a_branch_that_would_go_the_other_way(node: Node, right: bool) -> Act:
    toy = Toy()
    step = compiled(node, toy)
    toy.optimizer.param_groups[0]["momentum"] = 0.5 if right else 0
    return lambda: step(*toy.args)


@bad
def a_plan_before_the_first_call(node: Node, right: bool) -> Act:
    toy = Toy()
    step = node.compile(lambda x, y: toy.model(x), toy.model, layout="dp=2")
    if right:
        step.prepare(*toy.args)
    return lambda: step.plan


@bad
def a_layout_for_other_chips(node: Node, right: bool) -> Act:
    return lambda: compiled(node, Toy(), "dp=2" if right else "dp=4")


@bad
def a_token_beyond_the_vocabulary(node: Node, right: bool) -> Act:
    model = nn.Sequential(nn.Embedding(16, 4))
    tokens = torch.zeros(8, dtype=torch.int64)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def look_up(tokens: Tensor) -> Tensor:
        loss = model(tokens).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    step = node.compile(look_up, model, optimizer, layout="dp=2").prepare(tokens)
    return lambda: step(tokens if right else tokens + 16)


@bad
def a_check_of_the_step(node: Node, right: bool) -> Act:
    toy = Toy()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        torch._check_tensor_all(y < 4, lambda: f"labels {y} are beyond 4 classes")
        return toy.model(x).square().mean()

    step, model, optimizer, (x, y) = toy.train(loss)
    compiled = node.compile(step, model, optimizer, layout="dp=2", name="train")
    return lambda: compiled(x, y if right else y + 4)


@bad
def a_closed_node(node: Node, right: bool) -> Act:
    other = connect("cpu:1")
    step = compiled(other, Toy(), "")
    if not right:
        other.close()

    def act() -> None:
        try:
            step(*Toy().args)
        finally:
            other.close()

    return act


@bad
def an_unknown_kind_of_chip(node: Node, right: bool) -> Act:
    def act() -> None:
        connect("cpu:1" if right else "cpus:1").close()

    return act


@bad
def no_number_of_chips(node: Node, right: bool) -> Act:
    def act() -> None:
        connect("cpu:1" if right else "cpu:one").close()

    return act
