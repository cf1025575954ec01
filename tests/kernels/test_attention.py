"""Attention for chips without torch's kernel for processors gives what that kernel gives."""

from typing import Any

import pytest
import torch

from numerics import assert_close
from supernode.errors import InputError
from supernode.kernels.attention import (
    attention,
    attention_backward,
    composed,
    composed_backward,
)

CASES: dict[str, dict[str, Any]] = {
    "plain": {"heads": 4, "groups": 4, "causal": False},
    "causal": {"heads": 4, "groups": 4, "causal": True},
    "grouped queries": {"heads": 6, "groups": 2, "causal": True},
    "a scale": {"heads": 2, "groups": 2, "causal": False, "scale": 0.3},
    "a mask": {"heads": 2, "groups": 2, "causal": False, "mask": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_both_ways_equal_the_fused_kernel(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    q = tensor(2, case["heads"], 8, 16)
    k, v = (tensor(2, case["groups"], 8, 16) for _ in range(2))
    grad = tensor(2, case["heads"], 8, 16)
    mask = tensor(8, 8) if case.get("mask") else None
    causal, scale = case["causal"], case.get("scale")
    out, logsumexp = attention(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
    ours = composed(q, k, v, 0.0, causal, mask, scale)
    assert_close(ours[0], out, reduced=16)
    assert_close(ours[1], logsumexp, reduced=16)
    args = (grad, q, k, v, out, logsumexp, 0.0, causal)
    want = attention_backward(*args, attn_mask=mask, scale=scale)
    for got, each in zip(composed_backward(*args, mask, scale), want, strict=True):
        assert_close(got, each, reduced=16)


GPU_CASES: dict[str, dict[str, Any]] = CASES | {
    "more keys than queries": {"heads": 2, "groups": 2, "causal": False, "keys": 11},
    "causal with more keys": {"heads": 2, "groups": 1, "causal": True, "keys": 11},
    "a mask of the batch": {"heads": 4, "groups": 2, "causal": False, "mask": (2, 1)},
    "narrow heads": {"heads": 2, "groups": 2, "causal": True, "width": 6},
    "usual sizes": {"heads": 4, "groups": 2, "causal": True, "width": 64, "tokens": 160},
}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", GPU_CASES)
def test_a_gpu_gives_what_processors_give_in_double_precision(
    name: str, dtype: torch.dtype
) -> None:
    case = GPU_CASES[name]
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    width, tokens = case.get("width", 16), case.get("tokens", 8)
    keys = case.get("keys", tokens)
    q, grad = (tensor(2, case["heads"], tokens, width) for _ in range(2))
    k, v = (tensor(2, case["groups"], keys, width) for _ in range(2))
    outer = case.get("mask", ())
    given: dict[str, Any] = {
        "attn_mask": tensor(*(() if outer is True else outer), tokens, keys) if outer else None,
        "scale": case.get("scale"),
    }
    wide = {key: x.double() if isinstance(x, torch.Tensor) else x for key, x in given.items()}
    operands = [x.double() for x in (q, k, v)]
    out, logsumexp = attention(*operands, 0.0, case["causal"], **wide)
    results = (out, logsumexp, 0.0, case["causal"])
    grads = attention_backward(grad.double(), *operands, *results, **wide)
    want = (out, logsumexp, *grads)

    there: dict[str, Any] = {
        key: x.cuda() if isinstance(x, torch.Tensor) else x for key, x in given.items()
    }
    q, k, v, grad = (x.cuda() for x in (q, k, v, grad))
    out, logsumexp = attention(q, k, v, 0.0, case["causal"], **there)
    results = (out, logsumexp, 0.0, case["causal"])
    got = (out, logsumexp, *attention_backward(grad, q, k, v, *results, **there))
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, reduced=keys)


def test_dropout_is_refused() -> None:
    x = torch.ones(1, 1, 2, 4)
    with pytest.raises(InputError, match="dropout"):
        composed(x, x, x, 0.1, False, None, None)
