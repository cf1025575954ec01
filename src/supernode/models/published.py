"""The published sizes, by name of recipe. Other sizes of a family: `Recipe.with_shape`."""

from collections.abc import Mapping
from dataclasses import dataclass

from supernode.models.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A model as published: how it is called, its shape, and the sequence it is trained with."""

    title: str
    shape: Shape
    sequence: int


def gpt3(layers: int, hidden: int, heads: int) -> Shape:
    """A GPT-3 with the vocabulary padded to 51,200, so that it splits over chips.

    **Source:** Brown et al., "Language Models are Few-Shot Learners", 2020, table 2.1; the
    padding: Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using
    Megatron-LM", 2021, section 5.
    """
    return Shape(
        family="gpt", layers=layers, hidden=hidden, heads=heads, vocab=51_200, bias=True, tied=True
    )


def mpt(layers: int, hidden: int, heads: int) -> Shape:
    """An MPT of the training benchmarks: learned positions, biases, the head tied.

    **Source:** MosaicML, llm-foundry, scripts/train/benchmarking/README.md; the parameter counts
    it prints.
    """
    return Shape(
        family="gpt", layers=layers, hidden=hidden, heads=heads, vocab=50_368, bias=True, tied=True
    )


def llama2(layers: int, hidden: int, heads: int, ffn: int, kv_heads: int = 0) -> Shape:
    """A Llama 1 or 2. **Source:** Touvron et al., "Llama 2", 2023, section 2.2; model cards."""
    return Shape(
        family="llama",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        vocab=32_000,
    )


def llama3(layers: int, hidden: int, heads: int, ffn: int) -> Shape:
    """A Llama 3: 8 key-value heads and 128,256 tokens in every size.

    The stretched rotary frequencies of Llama 3.1 are left out: they change no shape and no cost.

    **Source:** Dubey et al., "The Llama 3 Herd of Models", 2024, table 3.
    """
    return Shape(
        family="llama",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=8,
        ffn=ffn,
        vocab=128_256,
    )


def qwen3(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    *,
    ffn: int,
    experts: int = 0,
    topk: int = 0,
) -> Shape:
    """A Qwen3. **Source:** Yang et al., "Qwen3 Technical Report", 2025, tables 1 and 2."""
    return Shape(
        family="llama",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=128,
        vocab=151_936,
        qk_norm=True,
        ffn=ffn,
        experts=experts,
        topk=topk,
    )


def deepseek(layers: int, hidden: int, heads: int, *, experts: int, mtp: int = 1) -> Shape:
    """A DeepSeek-V3. **Source:** DeepSeek-AI, "DeepSeek-V3 Technical Report", 2024, section 4.2."""
    return Shape(
        family="deepseek",
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocab=129_280,
        ffn=18_432,
        experts=experts,
        topk=8,
        expert_ffn=2048,
        shared_experts=1,
        dense_layers=3,
        mtp=mtp,
    )


def gpt_oss(layers: int, experts: int) -> Shape:
    """A gpt-oss. **Source:** OpenAI, "gpt-oss-120b & gpt-oss-20b Model Card", 2025, section 2, and
    the models' configuration files."""
    return Shape(
        family="gpt-oss",
        layers=layers,
        hidden=2880,
        heads=64,
        kv_heads=8,
        head_dim=64,
        vocab=201_088,
        ffn=2880,
        experts=experts,
        topk=4,
        window=128,
    )


def _entry(title: str, shape: Shape, sequence: int) -> Published:
    return Published(title=title, shape=shape, sequence=sequence)


_MIXTRAL = Shape(
    family="llama",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    ffn=14_336,
    vocab=32_000,
    experts=8,
    topk=2,
)
"""**Source:** Jiang et al., "Mixtral of Experts", 2024, table 1."""

_QWEN2_7B = Shape(
    family="llama",
    layers=28,
    hidden=3584,
    heads=28,
    kv_heads=4,
    ffn=18_944,
    vocab=152_064,
    bias=True,
)
"""**Source:** Yang et al., "Qwen2 Technical Report", 2024, table 1."""

_MINIMAX_M2 = Shape(
    family="llama",
    layers=62,
    hidden=3072,
    heads=48,
    kv_heads=8,
    head_dim=128,
    ffn=1536,
    vocab=200_064,
    joint_norm=True,
    experts=256,
    topk=8,
)
"""Scores by softmax, where the model has a sigmoid and a bias of the choice, and every dim of a
head turned, where half of them are. **Source:** MiniMax, the configuration file of MiniMax-M2,
2025; M2.5 has the same."""

PUBLISHED: Mapping[str, Published] = {
    "gpt3-175b": _entry("GPT-3 175B", gpt3(96, 12_288, 96), 2048),
    "mpt-7b": _entry("MPT 7B", mpt(32, 4096, 32), 2048),
    "mpt-30b": _entry("MPT 30B", mpt(48, 7168, 56), 2048),
    "llama2-7b": _entry("Llama 2 7B", llama2(32, 4096, 32, 11_008), 4096),
    "llama2-13b": _entry("Llama 2 13B", llama2(40, 5120, 40, 13_824), 4096),
    "llama2-70b": _entry("Llama 2 70B", llama2(80, 8192, 64, 28_672, kv_heads=8), 4096),
    "llama3-8b": _entry("Llama 3 8B", llama3(32, 4096, 32, 14_336), 4096),
    "llama3-70b": _entry("Llama 3 70B", llama3(80, 8192, 64, 28_672), 4096),
    "llama3-405b": _entry("Llama 3 405B", llama3(126, 16_384, 128, 53_248), 4096),
    "mixtral-8x7b": _entry("Mixtral 8x7B", _MIXTRAL, 4096),
    "qwen2-7b": _entry("Qwen2 7B", _QWEN2_7B, 4096),
    "qwen3-32b": _entry("Qwen3 32B", qwen3(64, 5120, 64, 8, ffn=25_600), 4096),
    "qwen3-30b-a3b": _entry(
        "Qwen3 30B-A3B", qwen3(48, 2048, 32, 4, ffn=768, experts=128, topk=8), 4096
    ),
    "qwen3-235b-a22b": _entry(
        "Qwen3 235B-A22B", qwen3(94, 4096, 64, 4, ffn=1536, experts=128, topk=8), 4096
    ),
    "minimax-m2": _entry("MiniMax-M2", _MINIMAX_M2, 4096),
    "gpt-oss-20b": _entry("gpt-oss-20b", gpt_oss(24, 32), 4096),
    "gpt-oss-120b": _entry("gpt-oss-120b", gpt_oss(36, 128), 4096),
    "deepseek-v3": _entry("DeepSeek-V3", deepseek(61, 7168, 128, experts=256), 4096),
}
