"""Low-rank adapters: a large model is held, and thin matrices beside some of its own learn.

**Source:** Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 4.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from supernode.errors import InputError

ADAPTED = ("query", "key", "value")
"""The layers that get one."""


class Adapted(nn.Linear):
    """A linear layer that is held; `input @ down.T @ up.T`, which learns, is added to its result.

    `down` is `[rank, in_features]` and `up`, zero at first, `[out_features, rank]`.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__(
            linear.in_features,
            linear.out_features,
            bias=False,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        self.weight, self.bias = linear.weight, linear.bias
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        nn.init.normal_(self.down, std=self.in_features**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + F.linear(F.linear(input, self.down), self.up)


def adapt(model: nn.Module, rank: int) -> None:
    """Holds all of `model` but adapters of that rank, which its layers of `ADAPTED` get.

    Raises InputError if it has no such layer.
    """
    model.requires_grad_(requires_grad=False)
    found = [
        (module, name, layer)
        for module in model.modules()
        for name, layer in module.named_children()
        if name in ADAPTED and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise InputError(f"{type(model).__name__} has no {', '.join(ADAPTED)} to adapt")
    for module, name, layer in found:
        setattr(module, name, Adapted(layer, rank))
