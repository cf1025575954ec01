"""Vision models, plain: ResNet, ConvNeXt, Swin and U-Net.

Names of tensors end in their dims: N batch, C channels, H and W height and width, T tokens of a
window. Images come as `[N, C, H, W]`. Nothing here is random after initialisation: the stochastic
depth of the published ConvNeXt and Swin is left out, which changes no shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The shape of a model that halves its image from stage to stage: blocks and channels each.

    An image has `image_channels`; an image or pixel is one of `classes`.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    image_channels: int = 3


RESNET_50 = Stages(depths=(3, 4, 6, 3), widths=(64, 128, 256, 512), classes=1000)
"""**Source:** He et al., "Deep Residual Learning for Image Recognition", 2015, table 1."""
CONVNEXT_TINY = Stages(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), classes=1000)
"""**Source:** Liu et al., "A ConvNet for the 2020s", 2022, section 3."""
SWIN_TINY = Stages(depths=(2, 2, 6, 2), widths=(96, 192, 384, 768), classes=1000)
"""**Source:** Liu et al., "Swin Transformer", 2021, section 3.3 (heads of 32, windows of 7)."""


class ResNet(nn.Module):
    """A residual network of bottlenecks: `[N, C, H, W]` to scores `[N, classes]`."""

    def __init__(self, config: Stages) -> None:
        super().__init__()
        first = config.widths[0]
        self.stem = _conv_norm(config.image_channels, first, kernel=7, stride=2)
        blocks: list[nn.Module] = []
        channels = first
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Bottleneck(channels, width, stride))
                channels = 4 * width
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(channels, config.classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = F.max_pool2d(F.relu(self.stem(x_NCHW)), 3, stride=2, padding=1)
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        return self.head(F.adaptive_avg_pool2d(x_NCHW, 1).flatten(1))


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels around a shortcut; 4 `width` channels come out."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.narrow = _conv_norm(channels, width, kernel=1)
        self.spatial = _conv_norm(width, width, kernel=3, stride=stride)
        self.widen = _conv_norm(width, 4 * width, kernel=1)
        changes = stride > 1 or channels != 4 * width
        self.shortcut = (
            _conv_norm(channels, 4 * width, kernel=1, stride=stride) if changes else nn.Identity()
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = F.relu(self.spatial(F.relu(self.narrow(x_NCHW))))
        return F.relu(self.widen(y_NCHW) + self.shortcut(x_NCHW))


def _conv_norm(channels: int, out: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    pad = kernel // 2
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=pad, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class ConvNeXt(nn.Module):
    """A ConvNeXt: `[N, C, H, W]` to scores `[N, classes]`; H and W are multiples of 4."""

    def __init__(self, config: Stages) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        layers: list[nn.Module] = [
            nn.Conv2d(config.image_channels, first, 4, stride=4),
            ChannelNorm(first),
        ]
        before = (first, *config.widths)
        for depth, (channels, width) in zip(config.depths, pairwise(before), strict=True):
            if layers[2:]:
                layers += [ChannelNorm(channels), nn.Conv2d(channels, width, 2, stride=2)]
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(last, eps=1e-6)
        self.head = nn.Linear(last, config.classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        for layer in self.layers:
            x_NCHW = layer(x_NCHW)
        return self.head(self.norm(x_NCHW.mean((2, 3))))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of `[N, C, H, W]`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution of 7 x 7, then a wide MLP pixel by pixel, scaled and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NHWC = self.norm(self.spatial(x_NCHW).permute(0, 2, 3, 1))
        y_NHWC = self.scale * self.down(F.gelu(self.up(y_NHWC)))
        return x_NCHW + y_NHWC.permute(0, 3, 1, 2)


class Swin(nn.Module):
    """A Swin transformer: `[N, C, H, W]` to scores `[N, classes]`.

    Each stage's image, of a quarter the size and then half the one before, is a multiple of the
    `window`, or not larger than it.
    """

    def __init__(self, config: Stages, *, d_head: int = 32, window: int = 7) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.patches = nn.Conv2d(config.image_channels, first, 4, stride=4)
        self.patch_norm = nn.LayerNorm(first)
        blocks: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            if stage:
                blocks.append(Merge(config.widths[stage - 1], width))
            blocks += [SwinBlock(width, d_head, window, shifted=i % 2 == 1) for i in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(last)
        self.head = nn.Linear(last, config.classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NHWC = self.patch_norm(self.patches(x_NCHW).permute(0, 2, 3, 1))
        for block in self.blocks:
            x_NHWC = block(x_NHWC)
        return self.head(self.norm(x_NHWC).mean((1, 2)))


class Merge(nn.Module):
    """Four neighbouring pixels become one of `width` channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.project = nn.Linear(4 * channels, width, bias=False)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        corners = [x_NHWC[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.project(self.norm(torch.cat(corners, -1)))


class SwinBlock(nn.Module):
    """Attention inside windows of an image `[N, H, W, C]`, then an MLP, both added to it."""

    def __init__(self, width: int, d_head: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, width // d_head, window)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x_NHWC: Tensor) -> Tensor:
        x_NHWC = x_NHWC + self._in_windows(self.attention_norm(x_NHWC))
        return x_NHWC + self.down(F.gelu(self.up(self.mlp_norm(x_NHWC))))

    def _in_windows(self, x_NHWC: Tensor) -> Tensor:
        size, (_, height, width, channels) = self.window, x_NHWC.shape
        shift = size // 2 if self.shifted and min(height, width) > size else 0
        mask = _seams(height, width, size, shift).to(x_NHWC) if shift else None
        if shift:
            x_NHWC = x_NHWC.roll((-shift, -shift), (1, 2))
        rows, columns = height // size, width // size
        tiles = x_NHWC.view(-1, rows, size, columns, size, channels).transpose(2, 3)
        y_NWTC = self.attention(tiles.reshape(-1, rows * columns, size * size, channels), mask)
        tiles = y_NWTC.view(-1, rows, columns, size, size, channels).transpose(2, 3)
        x_NHWC = tiles.reshape(-1, height, width, channels)
        return x_NHWC.roll((shift, shift), (1, 2)) if shift else x_NHWC


def _seams(height: int, width: int, size: int, shift: int) -> Tensor:
    """0 where two pixels of a window were neighbours before the shift, else -100: [W, T, T]."""
    rows, columns = (
        torch.bucketize(torch.arange(n), torch.tensor([n - size, n - shift]), right=True)
        for n in (height, width)
    )
    region_HW = 3 * rows[:, None] + columns
    tiles = region_HW.view(height // size, size, width // size, size).transpose(1, 2)
    region_WT = tiles.reshape(-1, size * size)
    return (region_WT[:, :, None] != region_WT[:, None, :]) * -100.0


class WindowAttention(nn.Module):
    """Attention among the T pixels of each window, with a learned bias for each distance."""

    positions_TT: Tensor

    def __init__(self, width: int, n_heads: int, window: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, n_heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("positions_TT", _distances(window), persistent=False)

    def forward(self, x_NWTC: Tensor, mask_WTT: Tensor | None) -> Tensor:
        q, k, v = (
            project(x_NWTC).unflatten(-1, (self.n_heads, -1)).transpose(2, 3)
            for project in (self.query, self.key, self.value)
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        scores = scores + self.bias[self.positions_TT].permute(2, 0, 1)
        if mask_WTT is not None:
            scores = scores + mask_WTT[:, None]
        return self.output((scores.softmax(-1) @ v).transpose(2, 3).flatten(3))


def _distances(window: int) -> Tensor:
    """A number for the vector between each two pixels of a window: [T, T]."""
    steps = torch.arange(window)
    at = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
    apart = at[:, :, None] - at[:, None, :] + window - 1
    return apart[0] * (2 * window - 1) + apart[1]


class UNet(nn.Module):
    """A U-Net: `[N, C, H, W]` to scores of each pixel `[N, classes, H, W]`.

    The image halves from stage to stage and is doubled back, joined by what it was on the way
    down; group normalisation, as diffusion models have it.

    **Source:** Ronneberger et al., "U-Net", 2015, figure 1.
    """

    def __init__(self, widths: Sequence[int], *, classes: int, image_channels: int = 3) -> None:
        super().__init__()
        down = pairwise((image_channels, *widths))
        up = pairwise(reversed(widths))
        self.down = nn.ModuleList(_double_conv(channels, out) for channels, out in down)
        self.up = nn.ModuleList(_double_conv(channels + out, out) for channels, out in up)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        passed: list[Tensor] = []
        for convs in self.down:
            x_NCHW = convs(F.max_pool2d(x_NCHW, 2) if passed else x_NCHW)
            passed.append(x_NCHW)
        for convs, kept_NCHW in zip(self.up, reversed(passed[:-1]), strict=True):
            wide_NCHW = F.interpolate(x_NCHW, scale_factor=2.0, mode="nearest")
            x_NCHW = convs(torch.cat([kept_NCHW, wide_NCHW], 1))
        return self.head(x_NCHW)


def _double_conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1),
        nn.GroupNorm(4, out),
        nn.SiLU(),
        nn.Conv2d(out, out, 3, padding=1),
        nn.GroupNorm(4, out),
        nn.SiLU(),
    )
