"""The shape of the model of a row: from its columns, or by the name of a published model."""

import re
from dataclasses import replace

from supernode.accuracy.case import NotExpressed
from supernode.accuracy.truth import Row
from supernode.models import Shape
from supernode.models.published import PUBLISHED, deepseek

_GPT = ("GPT", "MPT", "OPT", "BLOOM")
_BY_NAME = {
    "Llama-3.1-8B": "llama3-8b",
    "Llama-3.1-70B": "llama3-70b",
    "Llama-3.3-70B": "llama3-70b",
    "Qwen3-32B": "qwen3-32b",
    "Qwen3-30B-A3B": "qwen3-30b-a3b",
    "Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "DeepSeek-V3": "deepseek-v3",
    "DeepSeek-R1": "deepseek-v3",
    "DeepSeek-R1-0528": "deepseek-v3",
    "MiniMax-M2.5": "minimax-m2",
    "gpt-oss-20b": "gpt-oss-20b",
    "gpt-oss-120b": "gpt-oss-120b",
}
_NO_RECIPE = {
    "Nemotron-3": "its Mamba-2 layers, whose scan is no op here",
    "DeepSeek-V4": "its sparse attention",
    "GLM-5": "its sparse attention, in which an indexer picks the keys",
    "Qwen3.5": "its gated delta networks, whose scan is no op here",
}
"""Models with layers that no family has, by the start of their names."""
_ADAPTERS = 16
"""The rank, on queries, keys and values alone. **Source:** Megatron-Bridge 0.3.0,
scripts/performance/configs/llama/llama3_llm_finetune.py and recipes/llama/llama3.py."""


def served_shape(row: Row) -> Shape:
    """The shape of a served model, by its name, without modules that predict ahead.

    Raises:
        NotExpressed: there is no recipe of that name.
    """
    name = row.text("model")
    if name == "Kimi-K2.5":  # Source: the model card of Kimi K2, 2025.
        kimi = deepseek(61, 7168, 64, experts=384, mtp=0)
        return replace(kimi, vocab=163_840, dense_layers=1)
    _refuse(name)
    if name not in _BY_NAME:
        raise NotExpressed(f"no recipe has the shape of {name}")
    return replace(PUBLISHED[_BY_NAME[name]].shape, mtp=0)


def trained_shape(row: Row) -> Shape:
    """The shape of a trained model, by the columns of its row.

    Raises:
        NotExpressed: the shape is not stated, or no family has it.
    """
    name = row.text("model")
    _refuse(name)
    if name.lower() in PUBLISHED and name.startswith("gpt-oss"):
        return PUBLISHED[name.lower()].shape
    if name.startswith("DeepSeek"):
        ahead = 0 if "w/o MTP" in row.text("note") else 1
        return replace(PUBLISHED["deepseek-v3"].shape, mtp=ahead)
    needed = ("layers", "hidden", "ffn", "heads", "vocab")
    missing = [column for column in needed if row.number(column) is None]
    if missing:
        raise NotExpressed(f"the shape of {name} is not stated ({', '.join(missing)})")
    if name.startswith(_GPT):
        tied = not name.startswith("GPT") or "untied" not in row.text("note")
        return replace(_sized("gpt", row), bias=True, tied=tied)
    return replace(
        _sized("llama", row),
        kv_heads=row.count("kv_heads", 0),
        head_dim=_head_dim(row),
        experts=row.count("experts", 0),
        topk=row.count("topk", 0),
        bias=bool(re.match(r"Qwen(1|2|-)", name)),
        qk_norm=name.startswith("Qwen3"),
        adapters=_ADAPTERS if row.noted("kind") == "LoRA" else 0,
    )


def _refuse(name: str) -> None:
    for start, why in _NO_RECIPE.items():
        if name.startswith(start):
            raise NotExpressed(f"no recipe has the layers of {name}: {why}")


def _sized(family: str, row: Row) -> Shape:
    return Shape(
        family=family,
        layers=row.count("layers", 0),
        hidden=row.count("hidden", 0),
        ffn=row.count("ffn", 0),
        heads=row.count("heads", 0),
        vocab=row.count("vocab", 0),
    )


def _head_dim(row: Row) -> int:
    """As the note says; 128 for Qwen3, whose heads are not hidden / heads wide."""
    noted = row.noted_number("head_dim")
    if noted:
        return int(noted)
    return 128 if row.text("model").startswith("Qwen3") else 0
