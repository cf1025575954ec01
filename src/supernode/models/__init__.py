"""Recipes: models with their train step and inputs, in plain PyTorch for one chip."""

from supernode.models.catalogue import recipe, recipes
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.language import LanguageModel
from supernode.models.llama import Llama, LlamaConfig
from supernode.models.recipe import Job, Recipe, Training
from supernode.models.text import byte_entropy, standard_library_text

__all__ = [
    "GPT",
    "GPTConfig",
    "Job",
    "LanguageModel",
    "Llama",
    "LlamaConfig",
    "Recipe",
    "Training",
    "byte_entropy",
    "recipe",
    "recipes",
    "standard_library_text",
]
