"""A layer with a Triton kernel of its own, trained on two chips of this host.

The kernel has a formula, so it is an op like any other: captured, split, costed, run on each chip.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

import supernode as sn

STEPS = 20


@triton.jit
def _swiglu(gate, up, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    g = tl.load(gate + at, mask=mask)
    tl.store(out + at, g * tl.sigmoid(g) * tl.load(up + at, mask=mask), mask=mask)


@sn.kernel("b h, b h -> b h")
def swiglu(gate, up):
    """silu(gate) * up"""
    out = torch.empty_like(gate)
    _swiglu[triton.cdiv(out.numel(), 1024),](gate, up, out, out.numel(), BLOCK=1024)
    return out


def backward(ctx, grad):
    gate, up = ctx.saved_tensors
    s = gate.sigmoid()
    return grad * up * s * (1 + gate * (1 - s)), grad * gate * s


def setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


swiglu.register_autograd(backward, setup_context=setup_context)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate(x), self.up(x)))


def main() -> None:
    torch.manual_seed(0)
    model = FeedForward(32, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def train_step(x: Tensor, y: Tensor) -> Tensor:
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    x = torch.randn(64, 32)
    with sn.connect("local:2") as node:
        step = node.compile(train_step, model, optimizer, layout="tp=2")
        losses = [float(step(x, x.sin())) for _ in range(STEPS)]
        print(f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps")
        seconds = step.simulate("gb200-nvl72", layout="dp=8").step_s
        print(f"{1e6 * seconds:.0f} µs a step on eight chips of a GB200 NVL72")


# The chips' processes run this file too, for the kernel in it: what connects belongs below.
if __name__ == "__main__":
    main()
