"""Random numbers: the draws of eager, once each, in its order; torch's distributions."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.checkpoint import checkpoint

from capture.jobs import Step, adamw, capture_job, custom, job, network, refused
from capture.steps import assert_exact, run_once
from supernode.capture import Captured, capture
from supernode.ir import TensorType
from supernode.kernels import generate


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_with_dropout_draws_one_mask(reentrant: bool) -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(model, x.clone().requires_grad_(), use_reentrant=reentrant)

    captured = assert_exact(lambda: job(adamw, forward=forward))
    names = [op.name for op in captured.program.main.ops]
    assert names.count("random.bernoulli") == 1


def test_reentrant_checkpoint_without_a_gradient_has_none() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            return checkpoint(model, x, use_reentrant=True)

        return step

    captured = capture_job(custom(body))
    assert {op.site.phase for op in captured.program.main.ops} == {"forward"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_of_any_layout_and_dtype(dtype: torch.dtype) -> None:
    """The backward of dropout rounds 1 / (1 - p) to bfloat16 as the CPU does."""

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            opt.zero_grad()
            hidden = F.dropout(model[0](x).to(dtype).t(), 0.3)  # type: ignore[index]
            loss = F.dropout(hidden, 0.1).float().square().sum()
            loss.backward()
            opt.step()
            return loss.detach(), torch.randn(3) + torch.rand(3)

        return step

    assert_exact(lambda: custom(body))


def test_draws_that_nobody_uses_have_a_number_and_cost_nothing() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            torch.randn(7)
            torch.empty(20).uniform_()
            return torch.rand(4)

        return step

    captured = assert_exact(lambda: custom(body))
    draws = [op for op in captured.program.main.ops if op.name.startswith("random.")]
    assert [op.name for op in draws] == ["random.uniform"]
    numbers = [op.args for op in captured.program.main.ops if op.name == "host.int"]
    assert numbers == [(2,)]


def test_dropout_with_its_default_probability() -> None:
    assert_exact(lambda: custom(lambda m, o: lambda x, y: F.dropout(x)))


def test_random_op_that_writes_its_noise() -> None:
    assert_exact(lambda: custom(lambda m, o: lambda x, y: F.rrelu(m(x), training=True).detach()))


def test_seeding_inside_the_step_is_refused() -> None:
    refused(custom(lambda m, o: lambda x, y: torch.manual_seed(0)), "state of the random generator")


def test_own_generator_is_refused() -> None:
    generator = torch.Generator()
    made = custom(lambda model, opt: lambda x, y: torch.rand(3, generator=generator))
    refused(made, "generator")


def test_an_op_without_a_rule_is_refused() -> None:
    refused(custom(lambda m, o: lambda x, y: torch.poisson(x.abs())), "aten.poisson draws random")


def test_complex_numbers_are_refused() -> None:
    made = custom(lambda m, o: lambda x, y: torch.randn(3, dtype=torch.complex64))
    refused(made, "complex random numbers")


def _drawing(draw: Callable[[Tensor], Any], *, seed: int = 0) -> Captured:
    torch.manual_seed(seed)
    return capture(draw, None, (), (torch.ones(4, 1000),))


def _drawn(draw: Callable[[Tensor], Any]) -> Tensor:
    """What a captured function of ones [4, 1000] gives."""
    return run_once(_drawing(draw), torch.ones(4, 1000))


MOMENTS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "rand": (lambda x: torch.rand(4, 1000), 1 / 2, 1 / 12),
    "uniform_": (lambda x: torch.empty(4, 1000).uniform_(-1, 3), 1, 16 / 12),
    "normal_": (lambda x: torch.empty(4, 1000).normal_(2, 3), 2, 9),
    "normal(float)": (lambda x: torch.normal(2.0, 3.0, (4, 1000)), 2, 9),
    "normal(tensor)": (lambda x: torch.normal(x, 3 * x), 1, 9),
    "normal(tensor, float)": (lambda x: torch.normal(x, 2.0), 1, 4),
    "exponential_": (lambda x: torch.empty(4, 1000).exponential_(2.0), 1 / 2, 1 / 4),
    "geometric_": (lambda x: torch.empty(4, 1000).geometric_(0.25), 4, 12),
    "log_normal_": (lambda x: torch.empty(4, 1000).log_normal_(0, 0.5).log(), 0, 1 / 4),
    "cauchy_": (lambda x: torch.empty(4, 1000).cauchy_(1, 2).sub(1).div(2).atan(), 0, 0.822467),
    "bernoulli": (lambda x: torch.bernoulli(0.2 * x), 0.2, 0.16),
    "bernoulli_": (lambda x: torch.empty(4, 1000).bernoulli_(0.2 * x), 0.2, 0.16),
    "dropout": (lambda x: F.dropout(x, 0.2), 1, 1 / 4),
    "alpha_dropout": (lambda x: F.alpha_dropout(torch.randn_like(x), 0.2), 0, 1),
    "native_dropout": (lambda x: torch.native_dropout(x, 0.2, True)[0], 1, 1 / 4),
    "randint": (lambda x: torch.randint(2, 8, (4, 1000)), 4.5, 35 / 12),
    "randint_like": (lambda x: torch.randint_like(x, 6), 2.5, 35 / 12),
    "random_": (lambda x: torch.empty(4, 1000).random_(2, 8), 4.5, 35 / 12),
    "random_(uint8)": (lambda x: torch.empty(4, 1000).byte().random_(), 127.5, 65535 / 12),
    "randperm": (lambda x: torch.randperm(4000), 1999.5, (4000**2 - 1) / 12),
    "multinomial": (lambda x: torch.multinomial(x[0, :6], 4000, True), 2.5, 35 / 12),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_distributions_are_those_of_torch(name: str) -> None:
    """At a fixed seed, within five standard errors; torch's own numbers are held to the same."""
    draw, mean, variance = MOMENTS[name]
    torch.manual_seed(3)
    plain, ours = draw(torch.ones(4, 1000)), _drawn(draw)
    assert (ours.shape, ours.dtype) == (plain.shape, plain.dtype)
    for values in (plain.double().flatten(), ours.double().flatten()):
        assert abs(values.mean() - mean) < 5 * (variance / 4000) ** 0.5
        assert abs(values.var() / variance - 1) < 0.25


def test_a_permutation_has_each_number_once() -> None:
    assert _drawn(lambda x: torch.randperm(4000)).sort().values.tolist() == list(range(4000))


def test_choices_without_replacement_are_different_and_follow_the_weights() -> None:
    def draw(x: Tensor) -> Tensor:
        return torch.multinomial(
            (x[:, None, :3] * torch.tensor([0.0, 1.0, 3.0])).expand(4, 500, 3).reshape(-1, 3), 2
        )

    chosen = _drawn(draw)
    assert (chosen > 0).all()
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert abs((chosen[:, 0] == 2).double().mean() - 0.75) < 5 * (0.1875 / 2000) ** 0.5


def test_attention_with_dropout_is_softmax_and_dropout() -> None:
    """What torch's processors run for it, too."""

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            q = model[0](x).unflatten(1, (2, 4, 4)).unsqueeze(2).flatten(0, 1)  # type: ignore[index]
            loss = F.scaled_dot_product_attention(q, q, q, dropout_p=0.25).square().sum()
            loss.backward()
            opt.step()
            return loss.detach()

        return step

    captured = assert_exact(lambda: custom(body))
    names = [op.name for op in captured.program.main.ops]
    assert names.count("random.bernoulli") == 1
    assert "aten._safe_softmax" in names


def test_layers_that_repeat_draw_different_numbers() -> None:
    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + F.dropout(torch.ones_like(x), 0.5)

    layers = nn.Sequential(*(Layer() for _ in range(4)))

    def step(x: Tensor) -> list[Tensor]:
        found = [x]
        for layer in layers:
            found.append(layer(found[-1]))
        return [b - a for a, b in pairwise(found)]

    torch.manual_seed(1)
    captured = capture(step, layers, (), (torch.zeros(1000),))
    assert captured.program.blocks, "the layers are one block"
    masks = run_once(captured, torch.zeros(1000))
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert 0.4 < (mask == other).double().mean() < 0.6


def test_seed_and_step_are_state() -> None:
    def draw(x: Tensor) -> Tensor:
        return torch.rand(8)

    captured = _drawing(draw, seed=2**64 - 5)
    program = captured.program
    ports = {
        port.name: (port.role, value.type)
        for port, value in zip(program.inputs, program.main.inputs, strict=True)
    }
    assert ports["random.seed"] == ports["random.step"] == ("state", TensorType("int64", ()))
    values = captured.inputs()
    assert (values["random.seed"], values["random.step"]) == (-5, 0)
    assert [port.name for port in program.outputs][-1:] == ["random.step"]
    assert not captured.present().keys() & {"random.seed", "random.step"}
    again = run_once(_drawing(draw, seed=2**64 - 5), torch.ones(4, 1000))
    assert torch.equal(again, run_once(captured, torch.ones(4, 1000)))
    other = run_once(_drawing(draw, seed=2**64 - 6), torch.ones(4, 1000))
    assert (again != other).all()


def test_each_step_draws_anew_and_evaluation_draws_nothing() -> None:
    model = network()

    def step(x: Tensor) -> Tensor:
        return model(x)

    x = torch.ones(8, 16)
    captured = capture(step, model, (), (x,))
    program, values = captured.program, captured.inputs() | captured.bind(x)
    first, *_, counted = generate(program)([values[port.name] for port in program.inputs])
    values["random.step"] = counted
    second, *_, counted = generate(program)([values[port.name] for port in program.inputs])
    assert counted == 2
    assert not torch.equal(first, second)
    evaluated = capture(step, model.eval(), (), (x,))
    assert not any("random" in port.name for port in evaluated.program.inputs)
    assert torch.equal(run_once(evaluated, x), model(x))
