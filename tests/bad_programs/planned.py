"""Layouts that do not fit, each with one that does."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from supernode import partition
from supernode.capture import capture
from supernode.ir import Program
from supernode.plan import Plan

Act = Callable[[], Plan]
PROGRAMS: dict[str, Callable[[bool], Act]] = {}


def bad(make: Callable[[bool], Act]) -> Callable[[bool], Act]:
    PROGRAMS[make.__name__] = make
    return make


def mlp(batch: int = 8, hidden: int = 12) -> Program:
    model = nn.Sequential(nn.Linear(10, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    return capture(lambda x: model(x).square().mean(), model, (), (torch.ones(batch, 10),)).program


def planned(program: Program, line: str, chips: int | None = None) -> Act:
    return lambda: partition(program, line, chips)


@bad
def an_axis_without_a_size(right: bool) -> Act:
    return planned(mlp(), "dp=2" if right else "dp")


@bad
def an_axis_misspelt(right: bool) -> Act:
    return planned(mlp(), "fsdp=2" if right else "fdsp=2")


@bad
def an_axis_named_twice(right: bool) -> Act:
    return planned(mlp(), "dp=4" if right else "dp=2,dp=2")


@bad
def axes_that_do_not_make_the_chips(right: bool) -> Act:
    return planned(mlp(), "dp=4,tp=2" if right else "dp=2,tp=2", 8)


@bad
def more_chips_than_hidden_units(right: bool) -> Act:
    return planned(mlp(), "dp=2,tp=5" if right else "dp=2,tp=16")


@bad
def more_chips_than_sequences(right: bool) -> Act:
    return planned(mlp(batch=5), "dp=4" if right else "dp=2,fsdp=3")


@bad
def weights_kept_over_more_chips_than_they_have_rows(right: bool) -> Act:
    return planned(mlp(batch=16), "dp=4,fsdp=4" if right else "fsdp=16")


@bad
def more_microbatches_than_samples(right: bool) -> Act:
    return planned(mlp(batch=9 if right else 7), "dp=2,micro=4")


@bad
def tokens_over_tp_without_tp(right: bool) -> Act:
    return planned(mlp(), "tp=2,sp" if right else "dp=2,sp")


@bad
def a_batch_of_one(right: bool) -> Act:
    return planned(mlp(batch=2 if right else 1), "dp=2")


@bad
def no_tokens(right: bool) -> Act:
    def step(x: Tensor) -> Tensor:
        return x.square().mean()

    x = torch.ones(8, 4) if right else torch.ones(8)
    return planned(capture(step, None, (), (x,)).program, "cp=2")


@bad
def no_matrix(right: bool) -> Act:
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU())
    program = capture(lambda x: model(x).mean(), model, (), (torch.ones(8, 4, 16),)).program
    return planned(program, "dp=2" if right else "tp=2")


class Filter(nn.Module):
    """An op that no row of the op table knows, deep in a model."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.ldl_factor(x)[0]


@bad
def an_op_without_a_row(right: bool) -> Act:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(Filter()))
    program = capture(lambda x: model(x), model, (), (torch.ones(8, 8),)).program
    return planned(program, "" if right else "dp=2")


@bad
def offloading_what_there_is_not(right: bool) -> Act:
    return planned(mlp(), "offload=optimizer" if right else "offload=moments")


@bad
def offloading_to_a_place_there_is_not(right: bool) -> Act:
    return planned(mlp(), "dp=2,offload=all@peers" if right else "dp=2,offload=all@disk")


@bad
def offloading_to_peers_of_one_chip(right: bool) -> Act:
    return planned(mlp(), "offload=all" if right else "offload=all@peers")
