"""Low-rank adapters: the model is held, they alone learn, on every layout as in plain PyTorch."""

import pytest
import torch

from emulate import run_plan, run_program
from numerics import assert_close
from supernode.errors import InputError
from supernode.models import Shape, recipe
from supernode.models.adapters import adapt
from supernode.partition import partition
from zoo import ZooStep
from zoo_runs import Subject, assert_near

TINY = Shape(family="llama", layers=2, hidden=32, heads=4, kv_heads=2, ffn=48, vocab=64, adapters=4)


def test_an_adapter_adds_the_product_of_its_matrices() -> None:
    model, held = TINY.model(8), TINY.changed({"adapters": 0}).model(8)
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    names = [f"blocks.{i}.attention.{of}" for i in range(2) for of in ("query", "key", "value")]
    assert list(learning) == [f"{name}.{part}" for name in names for part in ("down", "up")]
    for weight in learning.values():
        torch.nn.init.normal_(weight, std=0.1)
    state = model.state_dict()
    for name in names:
        state[f"{name}.weight"] = state[f"{name}.weight"] + state.pop(f"{name}.up") @ state.pop(
            f"{name}.down"
        )
    held.load_state_dict(state)
    tokens = torch.arange(16).view(2, 8)
    assert_close(model.logits(tokens), held.logits(tokens), reduced=64)


def test_a_recipe_with_adapters_trains_them_alone() -> None:
    job = recipe("llama3-8b").with_shape(
        {
            "layers": 1,
            "hidden": 32,
            "heads": 4,
            "kv_heads": 2,
            "ffn": 48,
            "vocab": 64,
            "adapters": 4,
        }
    )
    made = job.build(batch=2, sequence=8)
    before = {name: weight.clone() for name, weight in made.model.named_parameters()}
    for _ in range(2):
        made.step(*made.inputs)
    changed = [n for n, weight in made.model.named_parameters() if not weight.equal(before[n])]
    assert changed == [n for n, weight in made.model.named_parameters() if weight.requires_grad]


def test_what_has_no_queries_gets_no_adapters() -> None:
    with pytest.raises(InputError, match="Linear has no query, key, value to adapt"):
        adapt(torch.nn.Linear(2, 2), 4)


@pytest.mark.parametrize("layout", ["dp=2", "fsdp=2", "tp=2", "pp=2,micro=2", "recompute=full"])
def test_adapters_learn_the_same_on_every_layout(layout: str) -> None:
    torch.manual_seed(0)
    model = TINY.model(8).double()
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    tokens = torch.randint(64, (4, 8))
    subject = Subject(
        ZooStep(model=model, optimizer=optimizer, step=step, args=(tokens, tokens.roll(-1, 1)))
    )
    program = subject.captured.program
    plan = partition(program, layout)
    want = subject.interpreted(lambda values: run_program(program, values))
    assert_near(subject.interpreted(lambda values: run_plan(plan, values)), want, layout)
    for one, other in zip(want.losses, subject.eager().losses, strict=True):
        assert_close(one, other, reduced=64)
