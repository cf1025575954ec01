"""Every module of torch.nn that computes something, in a small configuration, with its inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Entry = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]
B, S, D = 4, 6, 8


def f(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Attention(nn.Module):
    """Attends to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Unpooled(nn.Module):
    """Puts the largest back where they were."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.MaxUnpool2d(2)(*nn.MaxPool2d(2, return_indices=True)(x))


class Rated(nn.Module):
    """The loss that an adaptive softmax gives."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.AdaptiveLogSoftmaxWithLoss(D, 8, [4])

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return self.head(x, target).loss


def _named(names: str, *inputs: Tensor, **settings: Any) -> dict[str, Entry]:
    return {
        name: (lambda name=name: getattr(nn, name)(**settings), inputs) for name in names.split()
    }


def _images(dims: int) -> dict[str, Entry]:
    x = f(B, 4, *{1: (8,), 2: (8, 8), 3: (4, 4, 4)}[dims])
    end = f"{dims}d"
    pads = " ".join(f"{kind}Pad{end}" for kind in ("Reflection", "Replication", "Zero", "Circular"))
    norms = f"BatchNorm{end} InstanceNorm{end}"
    found = {
        **_named(f"Conv{end}", x, in_channels=4, out_channels=4, kernel_size=3, padding=1),
        **_named(f"ConvTranspose{end}", x, in_channels=4, out_channels=4, kernel_size=2, stride=2),
        **_named(f"MaxPool{end} AvgPool{end}", x, kernel_size=2),
        **_named(f"AdaptiveAvgPool{end} AdaptiveMaxPool{end}", x, output_size=2),
        **_named(f"LPPool{end}", x, norm_type=2, kernel_size=2),
        **_named(norms, x, num_features=4, affine=True),
        **_named(pads, x, padding=1),
        **_named(f"ConstantPad{end}", x, padding=1, value=0.5),
        **_named(f"Dropout{end}", x, p=0.0),
    }
    if dims > 1:
        found |= _named(f"FractionalMaxPool{end}", x, kernel_size=2, output_size=2)
    return found


def _losses() -> dict[str, Entry]:
    x, y = f(B, D), f(B, D).flip(0)
    likely, other = x.sigmoid(), y.sigmoid()
    classes, signs = torch.tensor([1, 0, 3, 2]), y.sign()
    labels = torch.tensor([[1, 2, -1, 0, 0, 0, 0, 0]] * B)
    lengths = torch.full((B,), S), torch.full((B,), 3)
    pairs = "L1Loss MSELoss SmoothL1Loss HuberLoss"
    return {
        **_named(pairs, x, y),
        **_named("BCELoss", likely, other),
        **_named("BCEWithLogitsLoss PoissonNLLLoss", x, other),
        **_named("KLDivLoss", x.log_softmax(-1), y.softmax(-1), reduction="batchmean"),
        **_named("GaussianNLLLoss", x, y, likely),
        **_named("CrossEntropyLoss MultiMarginLoss", x, classes),
        **_named("NLLLoss", x.log_softmax(-1), classes),
        **_named("HingeEmbeddingLoss SoftMarginLoss", x, signs),
        **_named("MultiLabelSoftMarginLoss", x, (y > 0).double()),
        **_named("MultiLabelMarginLoss", x, labels),
        **_named("CosineEmbeddingLoss", x, y, torch.tensor([1, -1, 1, -1])),
        **_named("MarginRankingLoss", x[:, 0], y[:, 0], signs[:, 1]),
        **_named("TripletMarginLoss TripletMarginWithDistanceLoss", x, y, x.flip(1)),
        **_named("CTCLoss", f(S, B, D).log_softmax(-1), classes[:, None].expand(B, 3), *lengths),
        "AdaptiveLogSoftmaxWithLoss": (Rated, (x, classes)),
    }


def _sequences() -> dict[str, Entry]:
    x, rows = f(B, S, D), f(B, D)
    layer = {"d_model": D, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, "batch_first": True}
    depth = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    sizes = {"input_size": D, "hidden_size": D}
    return {
        **_named("RNN LSTM GRU", x, **sizes, batch_first=True),
        **_named("RNNCell LSTMCell GRUCell", rows, **sizes),
        **_named("TransformerEncoderLayer", x, **layer),
        **_named("TransformerDecoderLayer", x, x.flip(0), **layer),
        **_named("Transformer", x, x.flip(0), **layer, **depth),
        "MultiheadAttention": (Attention, (x,)),
    }


def _upsampled() -> dict[str, Entry]:
    shapes = {"linear": (4,), "trilinear": (4, 4, 4)}
    return {
        f"Upsample({mode})": (
            lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode),
            (f(B, 4, *shapes.get(mode, (4, 4))),),
        )
        for mode in ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear")
    }


_ACTIVATIONS = (
    "ReLU ReLU6 ELU SELU CELU GELU Sigmoid LogSigmoid Tanh Softplus Softsign SiLU Mish Hardswish "
    "Hardsigmoid Hardtanh Hardshrink Softshrink Tanhshrink LeakyReLU PReLU RReLU Identity GLU"
)
IDS = torch.arange(8).view(4, 2)
MODULES: dict[str, Entry] = {
    **_named(_ACTIVATIONS, f(B, S, D)),
    **_named("Threshold", f(B, D), threshold=0.1, value=2.0),
    **_named("Softmax LogSoftmax Softmin", f(B, S, D), dim=-1),
    **_named("Softmax2d", f(B, 3, 4, 4)),
    **_named("Linear", f(B, D), in_features=D, out_features=D),
    **_named("Bilinear", f(B, D), f(B, D).flip(0), in1_features=D, in2_features=D, out_features=4),
    **_named("Embedding EmbeddingBag", IDS, num_embeddings=16, embedding_dim=D),
    **_named("Flatten", f(B, S, D)),
    **_named("Unflatten", f(B, S, D), dim=1, unflattened_size=(2, 3)),
    **_images(1),
    **_images(2),
    **_images(3),
    "MaxUnpool2d": (Unpooled, (f(B, 4, 8, 8),)),
    **_named("GroupNorm", f(B, 4, 8), num_groups=2, num_channels=4),
    **_named("LayerNorm RMSNorm", f(B, S, D), normalized_shape=D),
    **_named("LocalResponseNorm", f(B, 4, 8, 8), size=2),
    **_named("Dropout AlphaDropout FeatureAlphaDropout", f(B, 4, 8), p=0.0),
    **_sequences(),
    **_named("PixelShuffle", f(B, 4, 4, 4), upscale_factor=2),
    **_named("PixelUnshuffle", f(B, 4, 4, 4), downscale_factor=2),
    **_named("ChannelShuffle", f(B, 4, 4, 4), groups=2),
    **_upsampled(),
    **_named("Fold", f(B, 8, 9), output_size=(4, 4), kernel_size=2),
    **_named("Unfold", f(B, 2, 4, 4), kernel_size=2),
    **_named("CosineSimilarity PairwiseDistance", f(B, D), f(B, D).flip(0)),
    **_losses(),
}

NOT_CAPTURED = {
    "AdaptiveLogSoftmaxWithLoss": "picks the rows of each cluster, a number that depends on data",
    "CTCLoss": "sizes its result by the longest of the lengths, which are data",
}
NOT_SPLIT = {
    "MultiLabelMarginLoss": "aten.multilabel_margin_loss_forward",
    "MultiMarginLoss": "aten.multi_margin_loss",
    "RReLU": "aten.rrelu_with_noise_backward",
}
"""Modules of which an op has no row: they run on one chip."""

DRAWN = ("FractionalMaxPool2d", "FractionalMaxPool3d")
"""Modules whose random numbers are not those that torch would draw, but the same on any chips."""
