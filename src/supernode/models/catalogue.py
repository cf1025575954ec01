"""The recipes, one entry each, and how to find one by name."""

from collections.abc import Callable

import torch

from supernode.errors import UnknownName, near_matches
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.language import LanguageModel
from supernode.models.llama import Llama, LlamaConfig
from supernode.models.recipe import Recipe, Training
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
    """Every recipe: those that train on real text, then the published sizes, smallest first."""
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


def llama3(
    *, n_layers: int, d_model: int, n_heads: int, d_feed_forward: int
) -> Callable[[int], Llama]:
    """A Llama 3: 8 key-value heads and 128,256 tokens in every size.

    The stretched rotary frequencies of Llama 3.1 are left out: they change no shape and no cost.

    **Source:** Dubey et al., "The Llama 3 Herd of Models", 2024, table 3.
    """

    def model(context: int) -> Llama:
        return Llama(
            LlamaConfig(
                n_layers=n_layers,
                d_model=d_model,
                n_heads=n_heads,
                n_kv_heads=8,
                d_feed_forward=d_feed_forward,
                vocab=128_256,
                context=context,
            )
        )

    return model


def gpt3_175b(context: int) -> GPT:
    """GPT-3 with the vocabulary padded to 51,200, so that it splits over chips.

    **Source:** Brown et al., "Language Models are Few-Shot Learners", 2020, table 2.1; the
    padding: Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
    Megatron-LM", 2021, section 5.
    """
    return GPT(GPTConfig(n_layers=96, d_model=12_288, n_heads=96, context=context, vocab=51_200))


def _on_text(
    name: str,
    model: Callable[[int], LanguageModel],
    *,
    sequence: int,
    batch: int,
    learning_rate: float,
    summary: str,
) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        model=model,
        training=Training(learning_rate=learning_rate),
        sequence=sequence,
        default_batch=batch,
        trainable=True,
    )


# All in bfloat16: weights, gradients and both moments of AdamW take 2 bytes a parameter each. A
# run that keeps float32 copies of them needs more memory than these recipes show.
def _size_only(
    name: str, model: Callable[[int], LanguageModel], *, sequence: int, summary: str
) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        model=model,
        training=Training(learning_rate=3e-4, dtype=torch.bfloat16),
        sequence=sequence,
        default_batch=1,
        trainable=False,
    )


_RECIPES = (
    _on_text(
        "gpt-tiny",
        gpt_tiny,
        sequence=32,
        batch=8,
        learning_rate=3e-3,
        summary="two narrow GPT layers on Python source, for tests",
    ),
    _on_text(
        "llama-tiny",
        llama_tiny,
        sequence=32,
        batch=8,
        learning_rate=3e-3,
        summary="four narrow Llama layers on Python source, for tests",
    ),
    _on_text(
        "gpt-mini",
        gpt_mini,
        sequence=256,
        batch=8,
        learning_rate=1e-3,
        summary="an 11 M parameter GPT that learns Python source byte by byte",
    ),
    _size_only(
        "llama3-8b",
        llama3(n_layers=32, d_model=4096, n_heads=32, d_feed_forward=14_336),
        sequence=4096,
        summary="Llama 3 8B, bfloat16, 4,096 tokens a sequence",
    ),
    _size_only(
        "llama3-70b",
        llama3(n_layers=80, d_model=8192, n_heads=64, d_feed_forward=28_672),
        sequence=4096,
        summary="Llama 3 70B, bfloat16, 4,096 tokens a sequence",
    ),
    _size_only(
        "gpt3-175b",
        gpt3_175b,
        sequence=2048,
        summary="GPT-3 175B, bfloat16, 2,048 tokens a sequence",
    ),
    _size_only(
        "llama3-405b",
        llama3(n_layers=126, d_model=16_384, n_heads=128, d_feed_forward=53_248),
        sequence=4096,
        summary="Llama 3 405B, bfloat16, 4,096 tokens a sequence",
    ),
)
