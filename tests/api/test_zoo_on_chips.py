"""Models of the zoo on real worker processes: three steps give what plain PyTorch gives.

In float64 where the model's ops know it, as in tests/partition/test_zoo.py; in low precision as
tests/partition/test_zoo_precision.py compares.
"""

from collections.abc import Iterator

import pytest
import torch

from supernode.partition import partition
from supernode.run import Node, connect
from zoo import ZOO, zoo_step
from zoo_precision import Precision, assert_as_good
from zoo_runs import NO_TP, SINGLE, Subject, assert_near

ON_TWO = ("dp=2", "fsdp=2", "pp=2", "tp=2")
ON_FOUR = ("dp=2,tp=2", "fsdp=2,tp=2")
ON_GPU = ("", "micro=2,recompute=full", "offload=all")
FOUR = ("llama", "mixtral", "t5", "resnet")
"""A decoder, experts, an encoder with a decoder, batch statistics."""
QUICK = ("llama", "resnet")


@pytest.fixture(scope="module")
def two() -> Iterator[Node]:
    with connect("local:2") as node:
        yield node


@pytest.fixture(scope="module")
def four() -> Iterator[Node]:
    with connect("local:4") as node:
        yield node


@pytest.fixture
def gpu() -> Iterator[Node]:
    with connect("cuda:1") as node:
        yield node


def check(node: Node, name: str, layouts: tuple[str, ...]) -> None:
    pytest.importorskip("transformers")
    subject = Subject(zoo_step(name, torch.float32 if name in SINGLE else torch.float64))
    program = subject.captured.program
    found = [subject.on_chips(node, partition(program, layout)) for layout in layouts]
    want = subject.eager()
    for layout, got in zip(layouts, found, strict=True):
        assert_near(got, want, layout)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_some_models_on_two_chips(two: Node, name: str) -> None:
    check(two, name, ON_TWO)


@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in ZOO if name not in QUICK])
def test_models_on_two_chips(two: Node, name: str) -> None:
    check(two, name, ON_TWO[:-1] if name in NO_TP else ON_TWO)


@pytest.mark.zoo
@pytest.mark.parametrize("name", FOUR)
def test_models_on_four_chips(four: Node, name: str) -> None:
    check(four, name, ON_FOUR)


@pytest.mark.slow
def test_chips_that_share_keys(four: Node) -> None:
    check(four, "llama", ("tp=4", "tp=4,sp"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ZOO)
def test_models_on_a_gpu(gpu: Node, name: str) -> None:
    check(gpu, name, ON_GPU)


@pytest.mark.zoo
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", QUICK)
def test_low_precision_on_two_chips(two: Node, name: str, precision: Precision) -> None:
    check_low_precision(two, name, precision, ON_TWO)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", QUICK)
def test_low_precision_on_a_gpu(gpu: Node, name: str, precision: Precision) -> None:
    check_low_precision(gpu, name, precision, ON_GPU)


def check_low_precision(
    node: Node, name: str, precision: Precision, layouts: tuple[str, ...]
) -> None:
    subject = precision.subject(name)
    program = subject.captured.program
    found = [subject.on_chips(node, partition(program, layout)) for layout in layouts]
    truth, want = precision.truth(name), subject.eager()
    for layout, got in zip(layouts, found, strict=True):
        assert_as_good(got, want, truth, layout)
