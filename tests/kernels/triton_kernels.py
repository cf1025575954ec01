"""Kernels as a user writes them, and models that use them; in a module, for the chips to import."""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

import supernode as sn


@triton.jit
def _linear_gelu(
    x, w, bias, out, pre, M, N, K, xm, xk, wk, wn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        k = start + inner
        left = (rows < M)[:, None] & (k < K)[None, :]
        right = (k < K)[:, None] & (columns < N)[None, :]
        a = tl.load(x + rows[:, None] * xm + k[None, :] * xk, mask=left, other=0.0)
        b = tl.load(w + k[:, None] * wk + columns[None, :] * wn, mask=right, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    total += tl.load(bias + columns, mask=columns < N, other=0.0)[None, :]
    gelu = 0.5 * total * (1 + tl.erf(total * 0.7071067811865476))
    at = rows[:, None] * N + columns[None, :]
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(pre + at, total, mask=mask)
    tl.store(out + at, gelu, mask=mask)


@sn.kernel("m k, k n, n -> m n, m n", whole="k", strided=True)
def linear_gelu(x, weight, bias):
    """gelu(x @ weight + bias), and what is inside."""
    (m, k), n = x.shape, weight.shape[1]
    out, pre = x.new_empty(m, n), x.new_empty(m, n)
    grid = (triton.cdiv(m, 16), triton.cdiv(n, 32))
    strides = (*x.stride(), *weight.stride())
    _linear_gelu[grid](x, weight, bias, out, pre, m, n, k, *strides, BM=16, BN=32, BK=16)
    return out, pre


@triton.jit
def _gelu_backward(grad, pre, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(pre + at, mask=at < n, other=0.0)
    slope = 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-x * x / 2)
    tl.store(out + at, slope * tl.load(grad + at, mask=at < n), mask=at < n)


@sn.kernel("m n, m n -> m n")
def gelu_backward(grad, pre):
    out = torch.empty_like(grad)
    _gelu_backward[triton.cdiv(grad.numel(), 256),](grad, pre, out, grad.numel(), BLOCK=256)
    return out


def _keep(ctx, inputs, output):
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])


def _linear_gelu_backward(ctx, grad, _):
    x, weight, pre = ctx.saved_tensors
    inside = gelu_backward(grad, pre)
    return inside @ weight.t(), x.t() @ inside, inside.sum(0)


linear_gelu.register_autograd(_linear_gelu_backward, setup_context=_keep)


@triton.jit
def _scaled_softmax(x, out, scale, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf")) * scale
    powers = tl.exp(values - tl.max(values))
    tl.store(out + row * columns + at, powers / tl.sum(powers), mask=at < columns)


@sn.kernel("b s t -> b s t", whole="t")
def scaled_softmax(x, scale: float = 1.0):
    """softmax(scale * x) over the last dim."""
    out = torch.empty_like(x)
    b, s, t = x.shape
    _scaled_softmax[b * s,](x, out, scale, t, BLOCK=triton.next_power_of_2(t))
    return out


def _softmax_backward(ctx, grad):
    (out,) = ctx.saved_tensors
    return ctx.scale * out * (grad - (grad * out).sum(-1, keepdim=True)), None


def _keep_softmax(ctx, inputs, output):
    ctx.scale = inputs[1]
    ctx.save_for_backward(output)


scaled_softmax.register_autograd(_softmax_backward, setup_context=_keep_softmax)


class Block(nn.Module):
    """Attention over a few tokens and a feed-forward layer; by kernels, or by torch alone."""

    def __init__(self, width: int, hidden: int, *, plain: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.up = nn.Parameter(torch.randn(width, hidden) / width**0.5)
        self.bias = nn.Parameter(torch.randn(hidden) / 8)
        self.down = nn.Linear(hidden, width)
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = q @ k.transpose(-1, -2)
        scale = x.shape[-1] ** -0.5
        weights = (scores * scale).softmax(-1) if self.plain else scaled_softmax(scores, scale)
        x = x + weights @ v
        tokens = x.flatten(0, 1)
        if self.plain:
            inside = nn.functional.gelu(tokens @ self.up + self.bias)
        else:
            inside, _ = linear_gelu(tokens, self.up, self.bias)
        return x + self.down(inside).view_as(x)


class Model(nn.Module):
    """Two blocks, and a head."""

    def __init__(self, *, plain: bool, width: int = 16, hidden: int = 24) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, hidden, plain=plain) for _ in range(2))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@triton.jit
def _row_sum(x, out, columns, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x + tl.program_id(0) * columns + at, mask=at < columns, other=0.0)
    tl.store(out + tl.program_id(0), tl.sum(total))


@sn.kernel("r c -> r", dtype=torch.float32)
def row_sum(x):
    out = torch.empty(x.shape[0], device=x.device)
    _row_sum[x.shape[0],](x, out, x.shape[1], BLOCK=16)
    return out


@triton.jit
def _triangle(x, out, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for earlier in range(0, row + 1):
        total += tl.load(x + earlier * BLOCK + at)
    if row >= 4:
        total *= 2
    tl.store(out + row, tl.sum(total))


@sn.kernel("r c -> r", whole="r c")
def triangle(x):
    out = x.new_empty(x.shape[0])
    _triangle[x.shape[0],](x, out, BLOCK=x.shape[1])
    return out


@triton.autotune([triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 128})], key=["n"])
@triton.jit
def _doubled(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)


@sn.kernel("n -> n")
def doubled(x):
    out = torch.empty_like(x)
    _doubled[lambda meta: (triton.cdiv(len(x), meta["BLOCK"]),)](x, out, len(x))
    return out


@sn.kernel(
    "m k, k n -> m n",
    flops=lambda m, k, n: 2 * m * k * n,
    bytes=lambda m, k, n: 4 * (2 * m * k + 2 * k * n + m * n),
)
def priced(x, w):
    return linear_gelu(x, w, x.new_zeros(w.shape[1]))[1]


@triton.jit
def _while_large(x, out):
    value = tl.load(x)
    while value > 1:
        value /= 2
    tl.store(out, value)


@sn.kernel("n -> n", whole="n")
def while_large(x):
    out = torch.empty_like(x)
    _while_large[1,](x, out)
    return out


@sn.kernel("n -> n")
def no_launch(x):
    return torch.zeros_like(x)


@sn.kernel("n m -> n m", whole="n m")
def with_mm(x):
    return doubled((x @ x).flatten()).view_as(x)


@sn.kernel("r c -> r")
def wrong_shape(x):
    return row_sum(x.t().contiguous())


@sn.kernel("r c -> r c", dtype=torch.float64)
def wrong_dtype(x):
    return torch.empty_like(x)


@sn.kernel("b s t -> b s t")
def wrong_formula(x):
    return scaled_softmax(x)
