"""The recipes, one entry each, and how to find one by name."""

import torch

from supernode.errors import UnknownName, near_matches
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.llama import Llama, LlamaConfig
from supernode.models.published import PUBLISHED, Published
from supernode.models.recipe import Recipe, Training
from supernode.models.shape import Shape
from supernode.models.text import VOCAB as BYTES


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none; the message names the nearest ones.
    """
    named = {known.name: known for known in recipes()}
    if name not in named:
        raise UnknownName(f"there is no recipe {name!r}", fix=near_matches(name, named))
    return named[name]


def recipes() -> tuple[Recipe, ...]:
    """Every recipe: those that train on real text, then the published sizes, by family."""
    return _RECIPES


def gpt_mini(context: int) -> GPT:
    """10.9 M parameters: what a laptop trains in a minute or two."""
    return GPT(GPTConfig(n_layers=6, d_model=384, n_heads=8, context=context, vocab=BYTES))


def gpt_tiny(context: int) -> GPT:
    """Two narrow layers: what a test trains in a second."""
    return GPT(GPTConfig(n_layers=2, d_model=64, n_heads=4, context=context, vocab=BYTES))


def llama_tiny(context: int) -> Llama:
    """Four narrow layers, two query heads to each key-value head."""
    return Llama(
        LlamaConfig(
            n_layers=4,
            d_model=64,
            n_heads=4,
            n_kv_heads=2,
            d_feed_forward=192,
            vocab=BYTES,
            context=context,
        )
    )


def sized(name: str, shape: Shape, *, sequence: int, summary: str) -> Recipe:
    """A recipe of a size only, in bfloat16.

    Weights, gradients and both moments of AdamW take 2 bytes a parameter each. A run that keeps
    float32 copies of them needs more memory than these recipes show.
    """
    return Recipe(
        name=name,
        summary=summary,
        model=shape.model,
        training=Training(learning_rate=3e-4, dtype=torch.bfloat16),
        sequence=sequence,
        default_batch=1,
        trainable=False,
        shape=shape,
    )


def _published(name: str, entry: Published) -> Recipe:
    summary = f"{entry.title}, bfloat16, {entry.sequence:,} tokens a sequence"
    return sized(name, entry.shape, sequence=entry.sequence, summary=summary)


_RECIPES = (
    Recipe(
        name="gpt-tiny",
        summary="two narrow GPT layers on Python source, for tests",
        model=gpt_tiny,
        training=Training(learning_rate=3e-3),
        sequence=32,
        default_batch=8,
        trainable=True,
    ),
    Recipe(
        name="llama-tiny",
        summary="four narrow Llama layers on Python source, for tests",
        model=llama_tiny,
        training=Training(learning_rate=3e-3),
        sequence=32,
        default_batch=8,
        trainable=True,
    ),
    Recipe(
        name="gpt-mini",
        summary="an 11 M parameter GPT that learns Python source byte by byte",
        model=gpt_mini,
        training=Training(learning_rate=1e-3),
        sequence=256,
        default_batch=8,
        trainable=True,
    ),
    *(_published(name, entry) for name, entry in PUBLISHED.items()),
)
