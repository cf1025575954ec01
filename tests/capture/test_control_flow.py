"""Python that depends on data is refused with the user's line; on constants, it is run."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from capture.jobs import Step, capture_job, custom, refused
from capture.steps import assert_exact
from supernode.errors import CaptureError


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


def test_the_larger_of_two_numbers() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Any:
            norm = model(x).detach().norm().item()
            scaled = x / max(1.0, norm) + torch.tensor(min(norm, 0.5))
            return scaled, max(norm, 100), max(3, 2), max([1, 2, 3])

        return step

    assert_exact(lambda: custom(body))


def test_branch_on_constants_is_taken() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            positions = torch.arange(x.shape[0])
            return x + 1 if (positions.diff() == 1).all() else x - positions.sum().item()

        return step

    assert_exact(lambda: custom(body))


def test_python_may_look_at_constants() -> None:
    sizes = torch.tensor([[1, 2], [2, 1], [1, 2]])

    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            rows = [a * b for a, b in sizes.tolist()]
            merges = torch.tensor([2]).expand(3).tolist()
            repeated = torch.repeat_interleave(sizes[:, 0] * sizes[:, 1], sizes[:, 0])
            places = (sizes[:, 0] == 1).nonzero().squeeze(1)
            kinds = sizes.unique()
            repeated += 1
            number = len(repeated) * int(kinds[-1]) + sum(rows) + sum(merges)
            return x.sum() * number + x[places].sum() + repeated.sum()

        return step

    captured = assert_exact(lambda: custom(body))
    captured.host_values()
    sizes[0, 0] = 3
    with pytest.raises(CaptureError, match="constant"):
        captured.host_values()


def test_autocast_for_another_device_is_refused() -> None:
    def body(model: nn.Module, opt: optim.Optimizer) -> Step:
        def step(x: Tensor, y: Tensor) -> Tensor:
            with torch.autocast("xpu", dtype=torch.bfloat16):
                return model(x)

        return step

    refused(custom(body), "autocast for xpu")


def test_a_number_that_leaves_the_step_says_what_it_is() -> None:
    losses: list[float] = []
    capture_job(custom(lambda m, o: lambda x, y: losses.append(m(x).detach().sum().item())))
    with pytest.raises(CaptureError, match="depends on data"):
        float(losses[0])
