"""The vision models have the published sizes, and each learns to tell two images apart."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from numerics import assert_close
from supernode.models.vision import (
    CONVNEXT_TINY,
    RESNET_50,
    SWIN_TINY,
    ConvNeXt,
    ResNet,
    Stages,
    Swin,
    SwinBlock,
    UNet,
)

SMALL = Stages(depths=(1, 2), widths=(16, 32), classes=4)
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(SMALL),
    "convnext": lambda: ConvNeXt(SMALL),
    "swin": lambda: Swin(SMALL, d_head=8, window=2),
    "unet": lambda: UNet((8, 16, 32), classes=4),
}


def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        # Source: the tables of pretrained weights in torchvision's documentation.
        (lambda: ResNet(RESNET_50), 25_557_032),
        (lambda: ConvNeXt(CONVNEXT_TINY), 28_589_128),
        (lambda: Swin(SWIN_TINY), 28_288_354),
    ],
)
def test_parameters_are_as_many_as_published(make: Callable[[], nn.Module], parameters: int):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in make().parameters()) == parameters


def _models() -> Iterator[object]:
    for name in sorted(MODELS):
        yield pytest.param(name, marks=pytest.mark.slow if name == "resnet" else pytest.mark.zoo)


@pytest.mark.parametrize("name", [*_models()])
def test_each_model_learns_its_targets(name: str):
    torch.manual_seed(0)
    model = MODELS[name]()
    targets = (images()[:, 0] > 0).long() if name == "unet" else torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(20):
        loss = F.cross_entropy(model(images()), targets)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_a_pixel_attends_to_its_window_and_shifted_windows_do_not_wrap_around():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 8, 16)
    for shifted, reached in ((False, (0, 4)), (True, (0, 2))):
        block = SwinBlock(16, 8, 4, shifted=shifted)
        changed = x.clone()
        changed[0, 0, 0] = -changed[0, 0, 0]
        differs = (block(changed) - block(x)).detach().abs().sum(-1)[0] > 1e-4
        rows = differs.any(1).nonzero().flatten().tolist()
        assert (rows[0], rows[-1] + 1) == reached


def test_unet_knows_where_a_pixel_is():
    torch.manual_seed(0)
    model = UNet((8, 16), classes=2).eval()
    x = images()
    assert model(x).shape == (4, 2, 32, 32)
    assert_close(model(x)[:2], model(x[:2]), reduced=64)
