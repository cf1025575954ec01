"""The steps on which predictions for this host are compared with what happens here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models import Recipe, Shape, Training, recipe
from supernode.models.vision import ResNet, Stages, Swin

_SMALL = Stages(depths=(1, 1), widths=(32, 64), classes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A training step with what it takes."""

    step: Callable[..., Tensor]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Sequence[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model by name, and how its step is made."""

    name: str
    summary: str
    make: Callable[[], Work]


def _language(found: Recipe, batch: int) -> Work:
    job = found.build(batch=batch)
    assert isinstance(job.optimizer, torch.optim.Optimizer)
    return Work(step=job.step, model=job.model, optimizer=job.optimizer, inputs=job.inputs)


def _experts() -> Work:
    shape = Shape(
        family="llama",
        layers=2,
        hidden=128,
        heads=4,
        kv_heads=2,
        vocab=256,
        ffn=256,
        experts=8,
        topk=2,
        expert_ffn=128,
    )
    found = Recipe(
        name="experts",
        summary="",
        model=shape.model,
        training=Training(learning_rate=3e-4),
        sequence=128,
        default_batch=8,
        trainable=False,
        shape=shape,
    )
    return _language(found, batch=8)


def _vision(make: Callable[[Stages], nn.Module], side: int) -> Work:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make(_SMALL)
        inputs = (torch.rand(8, 3, side, side), torch.randint(10, (8,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def train_step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return Work(step=train_step, model=model, optimizer=optimizer, inputs=inputs)


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        name="gpt-mini",
        summary="the recipe, two sequences",
        make=lambda: _language(recipe("gpt-mini"), batch=2),
    ),
    Subject(
        name="llama-tiny",
        summary="the recipe",
        make=lambda: _language(recipe("llama-tiny"), batch=8),
    ),
    Subject(name="experts", summary="two layers of eight experts", make=_experts),
    Subject(
        name="resnet", summary="two stages of bottlenecks", make=lambda: _vision(ResNet, side=64)
    ),
    Subject(name="swin", summary="two stages of windows", make=lambda: _vision(Swin, side=56)),
)
