"""Each idiom of a train step is captured bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler, swa_utils
from torch.utils.checkpoint import checkpoint

from capture.jobs import (
    adamw,
    capture_job,
    data,
    job,
    matrices,
    network,
    vectors,
)
from capture.steps import Job, assert_exact, run_once
from supernode.capture import capture

OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "AdamW": adamw,
    "Adam amsgrad": lambda m: optim.Adam(m.parameters(), lr=1e-2, amsgrad=True),
    "Adam maximize": lambda m: optim.Adam(m.parameters(), maximize=True, weight_decay=0.1),
    "SGD": lambda m: optim.SGD(m.parameters(), lr=0.1),
    "SGD momentum": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda m: optim.RMSprop(m.parameters()),
    "RMSprop momentum": lambda m: optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "Adagrad": lambda m: optim.Adagrad(m.parameters(), initial_accumulator_value=0.1),
    "Adadelta": lambda m: optim.Adadelta(m.parameters()),
    "NAdam": lambda m: optim.NAdam(m.parameters()),
    "Adamax": lambda m: optim.Adamax(m.parameters()),
    "Rprop": lambda m: optim.Rprop(m.parameters()),
    "Muon": lambda m: optim.Muon(matrices(m), lr=1e-2),
    "AdamW foreach": lambda m: optim.AdamW(m.parameters(), foreach=True),
    "AdamW two groups": lambda m: optim.AdamW(
        [
            {"params": matrices(m)},
            {"params": vectors(m), "weight_decay": 0.0, "lr": 3e-3, "betas": (0.8, 0.99)},
        ],
        lr=1e-2,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name: str) -> None:
    assert_exact(lambda: job(OPTIMIZERS[name]))


def test_fused_optimizer_is_recorded_as_its_plain_loop() -> None:
    fused, plain = (
        job(lambda m, fused=fused: optim.AdamW(m.parameters(), fused=fused))
        for fused in (True, False)
    )
    assert str(capture_job(fused).program) == str(capture_job(plain).program)


IDIOMS: dict[str, dict[str, Any]] = {
    "zero_grad last": {"zero_first": False, "zero_last": True},
    "zero_grad to zeros": {"set_to_none": False},
    "zero_grad to zeros, last": {"zero_first": False, "zero_last": True, "set_to_none": False},
    "no zero_grad": {"zero_first": False},
    "clip_grad_norm": {"after_backward": lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1)},
    "clip foreach": {
        "after_backward": lambda m: nn.utils.clip_grad_norm_(m.parameters(), 0.1, foreach=True)
    },
    "clip_grad_value": {
        "after_backward": lambda m: nn.utils.clip_grad_value_(m.parameters(), 0.01)
    },
    "autocast": {"autocast": True},
    "accumulation": {"parts": 4},
    "checkpoint": {"forward": lambda m, x: checkpoint(m, x, use_reentrant=False)},
    "reentrant checkpoint": {
        "forward": lambda m, x: m[1:](
            checkpoint(m[0], x.clone().requires_grad_(), use_reentrant=True)
        )
    },
    "LinearLR": {"scheduler": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=10)},
    "OneCycleLR": {"scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20)},
    "CosineAnnealingWarmRestarts": {
        "scheduler": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2)
    },
}


@pytest.mark.parametrize("name", IDIOMS)
def test_idiom(name: str) -> None:
    assert_exact(lambda: job(adamw, **IDIOMS[name]))


def test_two_optimizers() -> None:
    def make() -> Job:
        model = nn.ModuleDict({"generator": nn.Linear(16, 16), "critic": nn.Linear(16, 1)})
        generator, critic = model["generator"], model["critic"]
        first, second = optim.AdamW(generator.parameters()), optim.AdamW(critic.parameters())

        def step(x: Tensor, y: Tensor) -> Tensor:
            second.zero_grad()
            loss = critic(generator(x).detach()).mean() - critic(x).mean()
            loss.backward()
            second.step()
            first.zero_grad()
            (-critic(generator(x)).mean()).backward()
            first.step()
            return loss.detach()

        return Job(model=model, optimizers=[first, second], step=step, args=data())

    captured = assert_exact(make)
    names = {port.name for port in captured.program.inputs}
    assert {"optimizer.step[generator.bias]", "optimizer1.step[critic.bias]"} <= names


def test_frozen_parameters_have_no_output() -> None:
    def make() -> Job:
        model = network()
        model[0].weight.requires_grad_(False)  # type: ignore[index]
        trained = [param for param in model.parameters() if param.requires_grad]
        opt = optim.AdamW(trained)

        def step(x: Tensor, y: Tensor) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss.detach()

        return Job(model=model, optimizers=[opt], step=step, args=data())

    program = assert_exact(make).program
    assert "0.weight" in {port.name for port in program.inputs}
    assert "0.weight" not in {port.name for port in program.outputs}
    assert "optimizer.step[0.weight]" not in {port.name for port in program.inputs}


def test_parameter_without_gradient_gets_no_state() -> None:
    def make() -> Job:
        model = nn.ModuleList([nn.Linear(16, 4), nn.Linear(16, 4)])
        opt = optim.AdamW(model.parameters())

        def step(x: Tensor, y: Tensor) -> None:
            opt.zero_grad()
            F.cross_entropy(model[0](x), y).backward()
            opt.step()

        return Job(model=model, optimizers=[opt], step=step, args=data())

    program = assert_exact(make).program
    assert not any(port.of.startswith("1.") for port in program.inputs)


def test_tied_weights_are_one_parameter() -> None:
    def make() -> Job:
        model = nn.Sequential(nn.Embedding(4, 16), nn.Tanh(), nn.Linear(16, 4, bias=False))
        model[2].weight = model[0].weight
        opt = optim.AdamW(model.parameters())

        def step(x: Tensor, y: Tensor) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(y), y)
            loss.backward()
            opt.step()
            return loss.detach()

        return Job(model=model, optimizers=[opt], step=step, args=data())

    program = assert_exact(make).program
    assert [port.name for port in program.inputs if port.role == "param"] == ["0.weight"]


def test_double_backward() -> None:
    def make() -> Job:
        model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))
        opt = optim.AdamW(model.parameters())

        def step(x: Tensor, y: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            opt.zero_grad()
            (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            loss = (gradient.norm(dim=1) - 1).pow(2).mean()
            loss.backward()
            opt.step()
            return loss.detach()

        return Job(model=model, optimizers=[opt], step=step, args=data())

    program = assert_exact(make).program
    modules = {op.site.module for op in program.main.ops if op.site.phase == "backward"}
    assert {"0", "1", "2"} <= modules


class Residual(nn.Module):
    """Convolutions, batch norm, an in-place activation, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        hidden = hidden + x.mean(1, keepdim=True)
        return self.head(self.pool(hidden).flatten(1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_updates_its_statistics(layout: torch.memory_format, training: bool) -> None:
    def make() -> Job:
        model = Residual().train(training)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: Tensor, y: Tensor) -> Tensor:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            return loss.detach()

        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        args = (images.to(memory_format=layout), torch.tensor([0, 3]))
        return Job(model=model, optimizers=[opt], step=step, args=args)

    program = assert_exact(make).program
    assert ("body.1.running_mean" in {port.name for port in program.outputs}) == training


def test_inference_and_plain_functions() -> None:
    model = network().eval()
    x, _ = data()
    for guard in (torch.no_grad(), torch.inference_mode()):

        def infer(batch: dict[str, Tensor], guard: Any = guard) -> Tensor:
            with guard:
                return model(batch["x"]).softmax(-1) @ torch.eye(4)

        captured = capture(infer, model, (), ({"x": x},))
        assert [p.name for p in captured.program.inputs if p.role == "arg"] == ["batch[x]"]
        assert torch.equal(run_once(captured, {"x": x}), infer({"x": x}))
    captured = capture(lambda a, *, b: {"sum": a + b}, None, None, (x,), {"b": x})
    assert torch.equal(run_once(captured, x, b=x)["sum"], x + x)
    assert captured.program.outputs[0].name == "result[sum]"


@pytest.mark.parametrize(
    "averaging",
    [
        {},
        {"use_buffers": True, "avg_fn": swa_utils.get_ema_avg_fn(0.9)},
        {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},
    ],
)
def test_averages_of_weights_begin_as_a_copy(averaging: dict[str, Any]) -> None:
    """Whether something was averaged before is a number in a buffer, which is asked in each run."""

    def make() -> Job:
        model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
        average = swa_utils.AveragedModel(model, **averaging)
        opt = adamw(model)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            average.update_parameters(model)
            return loss.detach()

        both = nn.ModuleDict({"model": model, "average": average})
        return Job(model=both, optimizers=[opt], step=step, args=data())

    assert_exact(make)
