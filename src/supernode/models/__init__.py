"""Recipes: models with their steps and inputs, in plain PyTorch for one chip."""

from supernode.models.catalogue import recipe, recipes, sized
from supernode.models.deepseek import DeepSeek, DeepSeekConfig
from supernode.models.experts import Experts, ExpertsConfig
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.gpt_oss import GptOss, GptOssConfig
from supernode.models.language import LanguageModel, Tokens
from supernode.models.latent import LatentAttention, LatentConfig
from supernode.models.llama import Llama, LlamaConfig
from supernode.models.recipe import PHASES, Job, Recipe, Training
from supernode.models.shape import Shape
from supernode.models.text import byte_entropy, standard_library_text

__all__ = [
    "GPT",
    "PHASES",
    "DeepSeek",
    "DeepSeekConfig",
    "Experts",
    "ExpertsConfig",
    "GPTConfig",
    "GptOss",
    "GptOssConfig",
    "Job",
    "LanguageModel",
    "LatentAttention",
    "LatentConfig",
    "Llama",
    "LlamaConfig",
    "Recipe",
    "Shape",
    "Tokens",
    "Training",
    "byte_entropy",
    "recipe",
    "recipes",
    "sized",
    "standard_library_text",
]
