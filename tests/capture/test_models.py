"""Whole models: of transformers and our own, bit for bit; an 8 B model in seconds."""

import resource
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from capture.steps import Job, assert_exact
from supernode.capture import capture
from supernode.errors import CaptureError
from supernode.models.catalogue import recipe
from supernode.units import GIGA

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}


def llama(layers: int, **sizes: int) -> nn.Module:
    config = transformers.LlamaConfig(num_hidden_layers=layers, **(SMALL | sizes))
    config._attn_implementation = "sdpa"
    return transformers.LlamaForCausalLM(config)


def experts() -> nn.Module:
    config = transformers.Qwen3MoeConfig(num_hidden_layers=2, **SMALL, **EXPERTS)
    return transformers.AutoModelForCausalLM.from_config(config)


def train(model: nn.Module, *inputs: Tensor) -> Job:
    model.train()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(ids: Tensor, mask: Tensor | None = None) -> Any:
        loss = model(input_ids=ids, labels=ids, attention_mask=mask, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        return loss.detach()

    return Job(model=model, optimizers=[opt], step=step, args=inputs)


def tokens() -> Tensor:
    return torch.randint(0, 128, (2, 32), generator=torch.Generator().manual_seed(0))


def test_llama_of_transformers() -> None:
    program = assert_exact(lambda: train(llama(4), tokens())).program
    assert len(program.main.ops) < program.num_ops() / 2


def test_padded_batch() -> None:
    mask = torch.ones(2, 32, dtype=torch.int64)
    mask[0, :5] = 0
    assert_exact(lambda: train(llama(2), tokens(), mask))


def test_experts_by_grouped_matmul() -> None:
    program = assert_exact(lambda: train(experts(), tokens())).program
    assert "aten._grouped_mm" in {op.name for block in program.all_blocks() for op in block.ops}


def test_experts_by_loop_are_refused() -> None:
    model = experts()
    model.set_experts_implementation("eager")
    made = train(model, tokens())
    with pytest.raises(CaptureError, match="depends on data"):
        capture(made.step, made.model, made.optimizers, made.args)


@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny"])
def test_own_recipes(name: str) -> None:
    def make() -> Job:
        built = recipe(name).build(batch=2)
        return Job(
            model=built.model, optimizers=[built.optimizer], step=built.step, args=built.inputs
        )

    program = assert_exact(make).program
    assert len(program.main.ops) < program.num_ops()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_eight_billion_parameters_on_meta() -> None:
    sizes = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    }
    with torch.device("meta"):
        model = llama(32, **sizes).to(torch.bfloat16)
        made = train(model, torch.empty(1, 4096, dtype=torch.int64))
    before, start = _resident_bytes(), time.process_time()
    captured = capture(made.step, made.model, made.optimizers, made.args)
    assert time.process_time() - start < 20
    assert _resident_bytes() - before < 1.5 * GIGA
    assert len(captured.program.main.ops) < 1000
    assert captured.program.num_ops() > 10_000
