"""Tensors from outside of the model, hooks, and what the user has before and after."""

from collections.abc import Callable
from functools import cache, lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from capture.jobs import (
    Step,
    adamw,
    capture_job,
    custom,
    data,
    job,
    matrices,
    network,
    refused,
)
from capture.steps import Job, assert_exact, run_captured, run_once, same, snapshot
from drawn import Drawing
from supernode.capture import capture
from supernode.errors import CaptureError, InputError


def test_constants_of_closures_and_attributes() -> None:
    table = torch.arange(16.0)
    scale = torch.tensor(0.5)

    def model() -> nn.Module:
        built = network()
        built.table = table  # type: ignore[assignment]
        return built

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            return model(x * model.table * scale) + torch.tensor([1.0, 2.0, 3.0, 4.0])

        return step

    captured = assert_exact(lambda: custom(body, model))
    assert [list(t.shape) for t in captured.constants.values()] == [[16], [4]]
    scale.mul_(2)
    with pytest.raises(CaptureError, match="constant"):
        captured.host_values()


@cache
def lower(size: int) -> Tensor:
    return torch.ones(size, size).tril()


@lru_cache(maxsize=4)
def wide(size: int) -> tuple[Tensor, ...]:
    return (torch.arange(size).float(),)


def test_constants_that_a_cache_keeps_are_real_afterwards() -> None:
    """The recorded run is the first one to ask for them."""
    kept: dict[int, Tensor] = {}

    def step(x: Tensor, y: Tensor) -> Tensor:
        size = x.shape[1]
        ones = kept.setdefault(size, torch.ones(size) / 2)
        return x @ lower(size) * ones[None, :] + wide(size)[0]

    lower.cache_clear()
    wide.cache_clear()
    made = custom(lambda model, opt: step)
    captured = capture_job(made)
    size = made.args[0].shape[1]
    assert type(kept[size]) is type(lower(size)) is type(wide(size)[0]) is Tensor
    assert torch.equal(step(*made.args), run_once(captured, *made.args))
    assert torch.equal(lower(size), torch.ones(size, size).tril())


def test_writes_to_tensors_from_elsewhere_are_refused() -> None:
    total, table = torch.tensor(0.0), torch.zeros(4)
    refused(custom(lambda m, o: lambda x, y: total.add_(m(x).sum().detach())), "neither of the mo")
    refused(custom(lambda m, o: lambda x, y: table.add_(m(x).sum().detach())), "neither of the mo")
    refused(custom(lambda m, o: lambda x, y: x.mul_(2)), "its argument x")


class Remembering(nn.Module):
    """Keeps a running mean as a plain attribute, or as a buffer."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)
        self.cache: Tensor | None = None
        if buffer:
            self.register_buffer("mean", torch.zeros(4))
        else:
            self.mean = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        if self.cache is None:
            self.cache = torch.ones(4)
        self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
        return out + self.mean * self.cache


def test_attribute_that_a_step_changes() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        return lambda x, y: model(x).detach()

    assert_exact(lambda: custom(body, lambda: Remembering(buffer=True)))
    refused(custom(body, lambda: Remembering(buffer=False)), r"Remembering\.mean", line=False)


def test_data_replaced_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            model[0].weight.data = torch.zeros(32, 16)  # type: ignore[index]
            return model(x)

        return step

    refused(custom(body), "data of a tensor was replaced")


def test_another_call_must_fit() -> None:
    captured = capture(lambda x, n: x + n, None, (), (torch.ones(3), 2))
    assert set(captured.bind(torch.zeros(3), 2)) == {"x"}
    with pytest.raises(InputError, match="n is 3, captured as 2"):
        captured.bind(torch.zeros(3), 3)
    with pytest.raises(InputError, match=r"x is f32\[4\]"):
        captured.bind(torch.zeros(4), 2)


def test_errors_of_the_user_stay_theirs() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            model.extra = model(x)  # type: ignore[assignment]
            model(x).sum().backward()
            opt.step()
            raise KeyError("mine")

        return step

    made = custom(body)
    before = snapshot(made)
    with pytest.raises(KeyError, match="mine"):
        capture_job(made)
    assert same(before, snapshot(made))


def test_a_graph_from_before_the_capture_still_works() -> None:
    made = job(adamw)
    loss = F.cross_entropy(made.model.eval()(made.args[0]), made.args[1])
    made.model.train()
    capture_job(made)
    loss.backward()
    assert made.model[0].weight.grad is not None  # type: ignore[index]


def test_params_held_in_a_closure_are_clipped() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        held = list(model.parameters())

        def step(x: Tensor, y: Tensor) -> Tensor:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            norm = nn.utils.clip_grad_norm_(held, 0.01)
            opt.step()
            return norm

        return step

    assert_exact(lambda: custom(body))


def test_trained_state_is_written_back_for_plain_training() -> None:
    """Two captured steps and one plain one are three plain ones."""
    torch.manual_seed(0)
    ours = job(lambda m: optim.Muon(matrices(m), lr=0.1))
    torch.manual_seed(0)
    plain = job(lambda m: optim.Muon(matrices(m), lr=0.1))
    captured = capture_job(ours)
    run_captured(captured, ours.args, 2, ours.between)
    with Drawing(captured.seed, 2):
        ours.step(*ours.args)
    for number in range(3):
        with Drawing(captured.seed, number):
            plain.step(*plain.args)
    assert same(ours.model.state_dict(), plain.model.state_dict())


def test_parameters_that_share_memory_are_refused() -> None:
    def model() -> nn.Module:
        built = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
        built[1].weight.data = built[0].weight.data
        return built

    def train(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            model(x).sum().backward()
            opt.step()
            opt.zero_grad()

        return step

    refused(custom(train, model), "share memory", line=False)
    assert_exact(lambda: custom(lambda m, o: lambda x, y: m(x).detach(), model))


def test_an_average_of_the_weights_is_part_of_the_model() -> None:
    def make() -> Job:
        model = nn.ModuleList([nn.Linear(16, 4), nn.Linear(16, 4)])
        live, average = model
        average.requires_grad_(False)
        opt = adamw(live)

        def step(x: Tensor, y: Tensor) -> Tensor:
            opt.zero_grad()
            F.cross_entropy(live(x), y).backward()
            opt.step()
            with torch.no_grad():
                for mean, weight in zip(average.parameters(), live.parameters(), strict=True):
                    mean.lerp_(weight, 0.1)
            return average(x)

        return Job(model=model, optimizers=[opt], step=step, args=data())

    assert_exact(make)


def test_gradient_hooks_run() -> None:
    def make() -> Job:
        made = job(adamw)
        first, bias = made.model[0].weight, made.model[0].bias  # type: ignore[index]
        first.register_hook(lambda gradient: gradient * 0.5)

        def decay(param: Tensor) -> None:
            param.data.mul_(0.9)

        bias.register_post_accumulate_grad_hook(decay)
        return made

    assert_exact(make)


def test_a_compiled_model_is_captured_as_plain_pytorch() -> None:
    model = network().eval()
    compiled = torch.compile(model, backend="eager")
    x, _ = data()
    assert torch.equal(run_once(capture(compiled, model, (), (x,)), x), model(x))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: nn.DataParallel(network()), "wrapped in DataParallel"),
        (lambda: nn.LazyLinear(4), "UninitializedParameter"),
        (lambda: nn.Embedding(16, 4, sparse=True), "sparse"),
    ],
)
def test_models_that_are_refused(model: Callable[[], nn.Module], text: str) -> None:
    built = model()
    x = torch.ones(2, 16, dtype=torch.int64 if isinstance(built, nn.Embedding) else None)

    def step(x: Tensor) -> None:
        out = built(x)
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    with pytest.raises(CaptureError, match=text):
        capture(step, built, (), (x,))


def test_gradient_of_an_argument_is_refused() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(CaptureError, match="gradient on its argument x"):
        capture(lambda x: x.square().sum().backward(), None, (), (x,))


class Lazy(nn.Module):
    """Installs its hook in the first step, as transformers does for hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.hooked = nn.Linear(4, 4), False

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            self.inner.register_forward_hook(lambda module, given, out: 2 * out)
            self.hooked = True
        return self.inner(x)


def test_hooks_that_a_step_installs_are_gone_after_capture() -> None:
    model, x = Lazy(), torch.randn(2, 4)
    capture(lambda x: model(x), model, None, (x,))
    assert not model.inner._forward_hooks
    assert torch.equal(model(x), 2 * F.linear(x, model.inner.weight, model.inner.bias))
