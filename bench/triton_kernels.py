"""The Triton kernels that `bench.triton_cpu` times: written as for a GPU, one row a program."""

import triton
import triton.language as tl


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64) * n, tl.arange(0, BLOCK)
    value = tl.load(x + row + i, mask=i < n, other=-float("inf"))
    power = tl.exp(value - tl.max(value, 0))
    tl.store(out + row + i, power / tl.sum(power, 0), mask=i < n)


@triton.jit
def layer_norm(x, weight, bias, out, n, eps, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64) * n, tl.arange(0, BLOCK)
    mask = i < n
    value = tl.load(x + row + i, mask=mask, other=0.0)
    mean = tl.sum(value, 0) / n
    centred = tl.where(mask, value - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / n + eps)
    w, b = tl.load(weight + i, mask=mask), tl.load(bias + i, mask=mask)
    tl.store(out + row + i, centred * scale * w + b, mask=mask)


@triton.jit
def rms_norm(x, weight, out, n, eps, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64) * n, tl.arange(0, BLOCK)
    mask = i < n
    value = tl.load(x + row + i, mask=mask, other=0.0)
    scale = 1 / tl.sqrt(tl.sum(value * value, 0) / n + eps)
    tl.store(out + row + i, value * scale * tl.load(weight + i, mask=mask), mask=mask)


@triton.jit
def swiglu(gate, up, out, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    g = tl.load(gate + i, mask=mask)
    u = tl.load(up + i, mask=mask)
    tl.store(out + i, g / (1 + tl.exp(-g)) * u, mask=mask)


@triton.jit
def cross_entropy(x, target, out, n, BLOCK: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    value = tl.load(x + row * n + i, mask=i < n, other=-float("inf"))
    largest = tl.max(value, 0)
    total = tl.log(tl.sum(tl.exp(value - largest), 0)) + largest
    tl.store(out + row, total - tl.load(x + row * n + tl.load(target + row)))


@triton.jit
def rotary(x, cos, sin, out, HALF: tl.constexpr, HEADS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, HALF)
    c, s = tl.load(cos + row * HALF + i), tl.load(sin + row * HALF + i)
    for head in range(HEADS):
        at = (row * HEADS + head) * 2 * HALF + i
        a, b = tl.load(x + at), tl.load(x + at + HALF)
        tl.store(out + at, a * c - b * s)
        tl.store(out + at + HALF, b * c + a * s)


@triton.jit
def chain(x, y, out, count, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    a, b = tl.load(x + i, mask=mask), tl.load(y + i, mask=mask)
    z = tl.maximum(a * 0.5 + b, 0.0)
    tl.store(out + i, z * z - a * b + 1.0, mask=mask)


@triton.jit
def matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    width = tl.cdiv(n, BN)
    row, column = tl.program_id(0) // width, tl.program_id(0) % width
    rows, columns = row * BM + tl.arange(0, BM), column * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    a_at = a + rows[:, None] * k + inner[None, :]
    b_at = b + inner[:, None] * n + columns[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for _ in range(0, k, BK):
        total = tl.dot(tl.load(a_at), tl.load(b_at), total)
        a_at += BK
        b_at += BK * n
    at = c + rows[:, None] * n + columns[None, :]
    tl.store(at, total.to(c.dtype.element_ty))


@triton.jit
def attention(q, k, v, out, length, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    head = tl.program_id(1).to(tl.int64) * length * D
    rows, dims = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, D)
    queries = tl.load(q + head + rows[:, None] * D + dims[None, :])
    largest = tl.full((BM,), -float("inf"), tl.float32)
    weight = tl.zeros((BM,), tl.float32)
    total = tl.zeros((BM, D), tl.float32)
    for start in range(0, length, BN):
        columns = start + tl.arange(0, BN)
        keys = tl.load(k + head + columns[None, :] * D + dims[:, None])
        scores = tl.dot(queries, keys) * scale
        top = tl.maximum(largest, tl.max(scores, 1))
        share = tl.exp2(scores - top[:, None])
        old = tl.exp2(largest - top)
        values = tl.load(v + head + columns[:, None] * D + dims[None, :])
        total = tl.dot(share.to(values.dtype), values, total * old[:, None])
        weight = weight * old + tl.sum(share, 1)
        largest = top
    at = out + head + rows[:, None] * D + dims[None, :]
    tl.store(at, (total / weight[:, None]).to(out.dtype.element_ty))
