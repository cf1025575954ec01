"""A layer of experts in plain PyTorch with a train step: dropless, by grouped matrix products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH, HIDDEN = 16, 32
Mix = Callable[["Experts", Tensor, Tensor, Tensor, int], Tensor]


class Experts(nn.Module):
    """Each token goes to `top` of `experts`, whose results are added up, weighted.

    `towards` is added to the scores: it can send all tokens to one expert, or none. `biased`
    experts add something of their own to their rows.
    """

    towards: Tensor

    def __init__(
        self,
        experts: int,
        top: int,
        mix: Mix,
        towards: tuple[float, ...] = (),
        biased: bool = False,
    ) -> None:
        super().__init__()
        self.top, self.mix = top, mix
        self.gate = nn.Linear(WIDTH, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, HIDDEN) / 4)
        self.down = nn.Parameter(torch.randn(experts, HIDDEN, WIDTH) / 4)
        self.bias = nn.Parameter(torch.randn(experts, HIDDEN)) if biased else None
        self.register_buffer("towards", torch.tensor(towards or (0.0,) * experts))

    def forward(self, x_BTD: Tensor) -> Tensor:
        x = x_BTD.flatten(0, 1)
        scores = (self.gate(x) + self.towards).softmax(-1)
        weights, chosen = scores.topk(self.top)
        keys, order = chosen.flatten().sort()
        counts = keys.float().histc(self.up.shape[0], 0, self.up.shape[0] - 1)
        ends = counts.cumsum(0, dtype=torch.int32)
        rows = torch._grouped_mm(x[order // self.top], self.up, ends)
        if self.bias is not None:
            rows = rows + self.bias[keys]
        rows = torch._grouped_mm(rows.relu(), self.down, ends)
        return x_BTD + self.mix(self, rows, weights, order, x.shape[0]).view_as(x_BTD)


def put_back(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Rows back in the order of the tokens, then each token's added up."""
    places = torch.empty_like(order)
    places[order] = torch.arange(order.shape[0])
    rows = (rows * weights.flatten()[order, None])[places]
    return rows.view(tokens, moe.top, -1).sum(1)


def add_up(moe: Experts, rows: Tensor, weights: Tensor, order: Tensor, tokens: int) -> Tensor:
    """Rows added to those of their tokens."""
    rows = rows * weights.flatten()[order, None]
    return rows.new_zeros(tokens, WIDTH).index_add(0, order // moe.top, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeStep:
    """A stack of layers with a plain train step over `args`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[..., Tensor]
    args: tuple[Tensor, ...]


def moe_step(
    mix: Mix = put_back,
    *,
    layers: int = 1,
    experts: int = 4,
    top: int = 2,
    batch: int = 4,
    towards: tuple[float, ...] = (),
    biased: bool = False,
) -> MoeStep:
    """`layers` of experts, a squared loss, SGD with momentum, over 8 tokens in each sequence."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Experts(experts, top, mix, towards, biased) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    args = (torch.randn(batch, 8, WIDTH), torch.randn(batch, 8, WIDTH))
    return MoeStep(model=model, optimizer=optimizer, step=step, args=args)
