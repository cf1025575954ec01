"""Whole models: HF Llama and our own, bit for bit; the size of an 8 B model in seconds."""

import resource
import time
import warnings
from typing import Any

import pytest
import torch
from capture.steps import Job, assert_exact
from torch import nn

from supernode.capture import capture

transformers = pytest.importorskip("transformers")


def llama(layers: int, **sizes: int) -> nn.Module:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "max_position_embeddings": 64,
    } | sizes
    config = transformers.LlamaConfig(num_hidden_layers=layers, **sizes)
    config._attn_implementation = "sdpa"
    return transformers.LlamaForCausalLM(config)


def train(model: nn.Module, ids: torch.Tensor) -> Job:
    model.train()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids: torch.Tensor) -> Any:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        return loss.detach()

    return Job(model=model, optimizers=[opt], step=step, args=(ids,))


def test_llama_of_transformers() -> None:
    ids = torch.randint(0, 128, (2, 32), generator=torch.Generator().manual_seed(0))
    captured = assert_exact(lambda: train(llama(4), ids))
    assert len(captured.program.main.ops) < captured.program.num_ops() / 2
