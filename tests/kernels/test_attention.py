"""Attention for chips without torch's kernel for processors gives what that kernel gives."""

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

CASES = {
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


def test_dropout_is_refused() -> None:
    x = torch.ones(1, 1, 2, 4)
    with pytest.raises(InputError, match="dropout"):
        composed(x, x, x, 0.1, False, None, None)
