"""What would go wrong in silence: each trap is either exact or refused with the user's line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from capture.steps import Job, assert_exact, run_captured, same, snapshot
from capture.test_idioms import adamw, data, job, matrices, network
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

from supernode.capture import capture
from supernode.errors import CaptureError, InputError

Step = Callable[[Tensor, Tensor], Any]


def capture_job(made: Job) -> Any:
    return capture(made.step, made.model, made.optimizers, made.args)


def custom(
    body: Callable[[nn.Module, optim.Optimizer], Step], model: Callable[[], nn.Module] = network
) -> Job:
    built = model()
    opt = adamw(built)
    return Job(model=built, optimizers=[opt], step=body(built, opt), args=data())


def refused(made: Job, text: str, *, line: bool = True) -> CaptureError:
    before = snapshot(made)
    with pytest.raises(CaptureError, match=text) as caught:
        capture_job(made)
    assert same(before, snapshot(made)), "a refused capture changed something of the user"
    assert not line or f"{__file__.rsplit('/', 1)[1].split('.')[0][:5]}" in caught.value.where
    return caught.value


# Hyper-parameters


def test_scheduler_that_moves_betas_is_followed() -> None:
    made = assert_exact(
        lambda: job(adamw, scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20))
    )
    names = {port.name for port in made.program.inputs if port.role == "host"}
    assert "optimizer.groups[0].betas[0]" in names


def test_change_of_a_fixed_hyper_parameter_is_noticed() -> None:
    made = job(adamw)
    captured = capture_job(made)
    captured.host_values()
    made.optimizers[0].param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(CaptureError, match=r"optimizer\.groups\[0\]\.weight_decay changed"):
        captured.host_values()


def test_learning_rate_changed_between_steps_is_followed() -> None:
    def make() -> Job:
        made = job(adamw)

        def halve() -> None:
            made.optimizers[0].param_groups[0]["lr"] *= 0.5

        made.between = halve
        return made

    assert_exact(make)


def test_branch_on_a_hyper_parameter_is_guarded() -> None:
    made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9))
    captured = capture_job(made)
    assert captured.host_values()["optimizer.groups[0].momentum"] == 0.9
    made.optimizers[0].param_groups[0]["momentum"] = 0.0
    with pytest.raises(CaptureError, match="branches on a hyper-parameter"):
        captured.host_values()


def test_hyper_parameter_set_inside_the_step_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            F.cross_entropy(model(x), y).backward()
            opt.param_groups[0]["lr"] = 0.5
            opt.step()
            opt.zero_grad()

        return step

    refused(custom(body), r"sets optimizer\.groups\[0\]\.lr", line=False)


def test_scheduler_before_optimizer_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.StepLR(opt, 1)

        def step(x: Tensor, y: Tensor) -> None:
            F.cross_entropy(model(x), y).backward()
            scheduler.step()
            opt.step()
            opt.zero_grad()

        return step

    refused(custom(body), "after its scheduler was stepped")


def test_plateau_scheduler_and_last_lr_are_refused() -> None:
    def plateau(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.ReduceLROnPlateau(opt)
        return lambda x, y: scheduler.step(F.cross_entropy(model(x), y))

    def last_lr(model: nn.Module, opt: optim.Optimizer) -> Step:
        scheduler = lr_scheduler.StepLR(opt, 1)
        return lambda x, y: scheduler.get_last_lr()

    refused(custom(plateau), "ReduceLROnPlateau")
    refused(custom(last_lr), "get_last_lr")


def test_train_mode_and_frozen_parameters_are_watched() -> None:
    made = job(adamw)
    captured = capture_job(made)
    made.model.eval()
    made.model[0].bias.requires_grad_(False)  # type: ignore[index]
    with pytest.raises(CaptureError, match=r"model\.training, 0\.bias\.requires_grad changed"):
        captured.host_values()


# Random numbers


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_with_dropout_draws_one_mask(reentrant: bool) -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(model, x.clone().requires_grad_(), use_reentrant=reentrant)

    captured = assert_exact(lambda: job(adamw, forward=forward))
    names = [op.name for op in captured.program.main.ops]
    assert names.count("aten.bernoulli.p") == 1


def test_reentrant_checkpoint_without_a_gradient_has_none() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            return checkpoint(model, x, use_reentrant=True)

        return step

    captured = capture_job(custom(body))
    assert {op.site.phase for op in captured.program.main.ops} == {"forward"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
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


def test_unused_random_numbers_are_drawn() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            torch.randn(7)
            torch.empty(20).uniform_()
            return torch.rand(4)

        return step

    assert_exact(lambda: custom(body))


def test_own_generator_is_refused() -> None:
    generator = torch.Generator()
    made = custom(lambda model, opt: lambda x, y: torch.rand(3, generator=generator))
    refused(made, "generator")


# State


def test_state_that_starts_from_ones() -> None:
    captured = assert_exact(lambda: job(lambda m: optim.NAdam(m.parameters())))
    assert "optimizer.mu_product[0.weight]" in {port.name for port in captured.program.inputs}
    fresh = capture_job(job(lambda m: optim.NAdam(m.parameters())))
    assert fresh.inputs()["optimizer.mu_product[0.weight]"] == 1.0
    assert fresh.inputs()["optimizer.step[0.weight]"] == 0.0


def test_capture_in_the_middle_of_training() -> None:
    def make() -> Job:
        made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.5))
        made.step(*made.args)
        return made

    assert_exact(make)


def test_state_that_starts_from_the_first_gradient_is_refused() -> None:
    made = job(lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.5))
    refused(made, "from the first gradient", line=False)


@pytest.mark.parametrize("name", ["RAdam", "Adafactor"])
def test_optimizers_that_branch_on_the_step_count_are_refused(name: str) -> None:
    refused(job(lambda m: getattr(optim, name)(m.parameters())), "depends on data")


def test_lbfgs_is_refused() -> None:
    refused(job(lambda m: optim.LBFGS(m.parameters())), "LBFGS", line=False)


class Counting(optim.Optimizer):
    """Keeps its step count as a Python number."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for param in self.param_groups[0]["params"]:
            state = self.state[param]
            state["step"] = state.get("step", 0) + 1
            param -= self.param_groups[0]["lr"] / state["step"] * param.grad


def test_state_in_python_numbers_is_refused() -> None:
    refused(job(lambda m: Counting(m.parameters())), "keeps a Python number", line=False)


def test_parameter_outside_of_the_model_is_refused() -> None:
    other = nn.Linear(4, 4)
    refused(job(lambda m: optim.SGD(other.parameters())), "not part of the model", line=False)

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        return lambda x, y: other(model(x)).sum().backward()

    refused(custom(body), "neither a parameter of the model nor an argument")


def test_gradients_kept_from_a_step_before() -> None:
    captured = assert_exact(lambda: job(adamw, zero_first=False))
    assert "grad[0.weight]" in {port.name for port in captured.program.inputs}


def test_gradients_present_at_capture() -> None:
    def make() -> Job:
        made = job(adamw)
        made.step(*made.args)
        assert made.model[0].weight.grad is not None  # type: ignore[index]
        return made

    captured = assert_exact(make)
    assert "grad[0.weight]" not in {port.name for port in captured.program.inputs}


def test_gradients_added_once_only_are_refused() -> None:
    made = job(adamw, zero_first=False, zero_last=True)
    F.cross_entropy(made.model(made.args[0]), made.args[1]).backward()
    refused(made, "added to in one step and not in the next", line=False)


# Control flow


def test_decision_on_a_loss_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> None:
            loss = F.cross_entropy(model(x), y)
            if loss.item() > 1:
                loss.backward()

        return step

    error = refused(custom(body), "compared")
    assert "torch.where" in error.fix
    refused(custom(lambda m, o: lambda x, y: bool(m(x).sum() > 0)), "depends on data")
    refused(custom(lambda m, o: lambda x, y: f"{m(x).sum().item():.3f}"), "depends on data")
    refused(custom(lambda m, o: lambda x, y: float(m(x).sum())), "depends on data")
    refused(custom(lambda m, o: lambda x, y: x[y.sum().item()]), "depends on data")
    refused(custom(lambda m, o: lambda x, y: range(y.sum().item())), "depends on data")


def test_grad_scaler_is_refused() -> None:
    scaler = torch.amp.GradScaler("cpu")
    made = custom(lambda m, o: lambda x, y: scaler.scale(F.cross_entropy(m(x), y)))
    refused(made, "GradScaler")
    assert scaler._scale is None


def test_shapes_that_depend_on_data_are_refused() -> None:
    refused(custom(lambda m, o: lambda x, y: m(x)[y > 1]), "depends on data")
    refused(custom(lambda m, o: lambda x, y: y.nonzero()), "depends on data")
    refused(custom(lambda m, o: lambda x, y: y.unique()), "depends on data")


def test_item_that_is_only_returned() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> dict[str, Any]:
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            half = loss.item() / 2
            return {"loss": loss.item(), "half": half, "name": "train", "logits": [x + half]}

        return step

    assert_exact(lambda: custom(body))


def test_branch_on_constants_is_taken() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            positions = torch.arange(x.shape[0])
            return x + 1 if (positions.diff() == 1).all() else x - positions.sum().item()

        return step

    assert_exact(lambda: custom(body))


# Tensors from elsewhere


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
    with pytest.raises(CaptureError, match="constant"):
        scale.mul_(2)
        captured.host_values()


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
    with pytest.raises(InputError, match=r"x is float32\[4\]"):
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
    torch.manual_seed(1)
    run_captured(capture_job(ours), ours.args, 2, ours.between)
    ours.step(*ours.args)
    torch.manual_seed(1)
    for _ in range(3):
        plain.step(*plain.args)
    assert same(ours.model.state_dict(), plain.model.state_dict())
