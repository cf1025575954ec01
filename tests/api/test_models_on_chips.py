"""Real models on real worker processes: five steps give what one chip gives in plain PyTorch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import supernode as sn
from numerics import assert_close
from supernode.models import recipe

STEPS = 5
LAYOUTS = {
    1: ("", "micro=2"),
    2: (
        "dp=2",
        "fsdp=2",
        "zero1=2",
        "tp=2",
        "tp=2,sp",
        "cp=2",
        "dp=2,micro=2",
        "pp=2",
        "pp=2,vp=2,micro=2",
        "pp=2,micro=4,schedule=gpipe",
    ),
    4: (
        "dp=4",
        "fsdp=4",
        "tp=4",
        "dp=2,tp=2",
        "fsdp=2,tp=2",
        "fsdp=2,tp=2,sp",
        "dp=2,cp=2",
        "fsdp=2,tp=2,micro=2",
        "pp=2,dp=2",
        "pp=2,fsdp=2,micro=2",
        "pp=2,tp=2,micro=2",
    ),
}
REDUCED = 4096
"""The longest sum behind a value: the tokens of a batch times the width of a layer."""


@dataclass
class Case:
    """A model with a plain train step and its batches."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[..., Tensor]
    batches: list[tuple[Tensor, ...]]


def gpt_mini() -> Case:
    job = recipe("gpt-mini").build(batch=4, sequence=32)
    optimizer = torch.optim.AdamW(job.model.parameters(), lr=1e-3, eps=EPS)
    step = train_step(job.model, optimizer, lambda tokens, targets: job.model(tokens, targets))
    assert job.batches is not None
    return Case(job.model, optimizer, step, take(job.batches()))


def hf_llama() -> Case:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=256,
        max_position_embeddings=64,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=EPS)
    step = train_step(
        model, optimizer, lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss
    )
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randint(0, 256, (4, 32), generator=generator),) for _ in range(STEPS)]
    return Case(model, optimizer, step, batches)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    def step(*batch: Tensor) -> Tensor:
        loss = loss_of(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def take(batches: Iterator[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    return [next(batches) for _ in range(STEPS)]


EPS = 1e-5
"""AdamW divides by the root of the squared gradient plus this: a smaller one would amplify the
rounding of gradients that are themselves mere rounding, on one chip as on many."""

CASES = {"gpt-mini": gpt_mini, "hf-llama": hf_llama}


def _cases() -> Iterator[object]:
    for name in CASES:
        for chips in LAYOUTS:
            whole = name == "gpt-mini" or chips == max(LAYOUTS)
            yield pytest.param(name, chips, marks=pytest.mark.zoo if whole else pytest.mark.slow)


@pytest.mark.parametrize(("name", "chips"), [*_cases()])
def test_five_steps_equal_one_chip(name: str, chips: int) -> None:
    want = CASES[name]()
    losses = [want.step(*batch) for batch in want.batches]
    with sn.connect(f"local:{chips}") as node:
        for layout in LAYOUTS[chips]:
            got = CASES[name]()
            step = node.compile(got.step, got.model, got.optimizer, layout=layout)
            for batch, loss in zip(got.batches, losses, strict=True):
                assert_close(step(*batch), loss, reduced=REDUCED)
            step.pull()
            for (param, new), old in zip(
                got.model.named_parameters(), want.model.parameters(), strict=True
            ):
                assert new.requires_grad, param
                assert_close(new, old, reduced=REDUCED)
            assert_states_close(got.optimizer, want.optimizer)


def assert_states_close(got: torch.optim.Optimizer, want: torch.optim.Optimizer) -> None:
    pairs = zip(got.state.values(), want.state.values(), strict=True)
    for new, old in pairs:
        assert new.keys() == old.keys()
        for key in new:
            assert_close(new[key], old[key], reduced=REDUCED)
