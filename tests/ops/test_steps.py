"""The rows hold on the ops of real train steps, and their FLOP add up to those of the step."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ops import steps
from ops.flops import counter
from ops.prove import expansion, prove
from supernode.capture import capture
from supernode.ir import CALL
from supernode.ops import cost, table


def own_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    return model(tokens, targets)


def check(step: steps.Step) -> None:
    for sample in steps.ran(step).values():
        rule = table()[sample.op.name]
        prove(rule, sample)
        cost(sample.op)
        for each in expansion(rule, sample) if rule.expand else ():
            prove(table()[each.op.name], each)


@pytest.mark.parametrize("model", [steps.gpt, steps.llama])
@pytest.mark.parametrize("optimizer", [steps.adamw, steps.momentum])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_hold_on_a_step_of_our_models(model: Any, optimizer: Any, dtype: torch.dtype):
    check(steps.train_step(model().to(dtype), optimizer, own_loss))


def hf_llama(**more: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2}
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8, **more
    )
    return transformers.LlamaForCausalLM(config)


def hf_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=targets).loss


def padded_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    mask = (torch.arange(tokens.shape[1]) > 1).long().expand(tokens.shape)
    return model(input_ids=tokens, labels=targets, attention_mask=mask).loss


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("loss", [hf_loss, padded_loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_hold_on_a_step_of_hf_llama(attention: str, loss: Any, dtype: torch.dtype):
    model = hf_llama(attn_implementation=attention).to(dtype)
    check(steps.train_step(model, steps.adamw, loss))


@pytest.mark.parametrize("model", [steps.gpt, steps.llama])
def test_flops_of_a_step_are_those_torch_counts(model: Any):
    module, optimizer, step, args = steps.train_step(model(), steps.adamw, own_loss)
    program = capture(step, module, optimizer, args).program
    counts = program.counts() | {"main": 1}
    total = 0.0
    for block in program.all_blocks():
        for op in block.ops:
            if op.name in table() and (spent := cost(op)).unit == "matmul":
                total += spent.flops * counts[block.name]
        assert block is program.main or not any(op.name == CALL for op in block.ops)
    with counter() as torch_counts:
        step(*args)
    assert total == torch_counts.get_total_flops() > 0
