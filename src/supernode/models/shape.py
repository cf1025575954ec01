"""Shape: the numbers that make one model of a family, under the names of published tables.

A family is a function from a Shape to a model. So a model that is not listed is one call:
`recipe("llama").with_shape(layers=40, hidden=5120, heads=40, ffn=13824)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from supernode.errors import InputError, UnknownName, near_matches
from supernode.models.adapters import adapt
from supernode.models.deepseek import DeepSeek, DeepSeekConfig
from supernode.models.experts import ExpertsConfig
from supernode.models.gpt import GPT, GPTConfig
from supernode.models.gpt_oss import GptOss, GptOssConfig
from supernode.models.language import LanguageModel
from supernode.models.latent import LatentConfig
from supernode.models.llama import Llama, LlamaConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model by numbers; what a family does not have is not read.

    `hidden` is the width of the residual stream, `ffn` of the feed-forward layer (0: 4 x hidden),
    `kv_heads` the heads of keys and values (0: as many as `heads`), `head_dim` the width of one
    (0: hidden / heads). Of a mixture, `experts` are how many there are (0: none), `topk` how many a
    token goes to, `expert_ffn` their width, `shared_experts` those every token goes to,
    `dense_layers` the first layers, which have none. `mtp` is how many tokens more are predicted,
    `window` how many tokens the layers look back that do not look at all (every other one).
    `qk_norm` normalises each head of queries and keys, `joint_norm` all heads of a token together.
    With `adapters` the model is held, and adapters of that rank on queries, keys and values learn.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    vocab: int
    ffn: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    experts: int = 0
    topk: int = 0
    expert_ffn: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    mtp: int = 0
    window: int = 0
    bias: bool = False
    qk_norm: bool = False
    joint_norm: bool = False
    tied: bool = False
    fused_attention: bool = True
    adapters: int = 0

    def model(self, context: int) -> LanguageModel:
        """The model for sequences of up to `context` tokens, from torch's global generator.

        Raises InputError where there is nothing that could have an adapter.
        """
        made = FAMILIES[self.family](self, context)
        if self.adapters:
            adapt(made, self.adapters)
        return made

    @property
    def period(self) -> int:
        """After how many layers kinds of them come again."""
        return 2 if self.window else 1

    def changed(self, changes: Mapping[str, int]) -> "Shape":
        """This shape with other numbers.

        Raises:
            UnknownName: there is no such number; the nearest are named.
            InputError: a number is negative.
        """
        known = [each.name for each in fields(self) if each.name != "family"]
        for name, value in changes.items():
            if name not in known:
                raise UnknownName(f"a shape has no {name!r}", fix=near_matches(name, known))
            if value < 0:
                raise InputError(f"{name} must be at least 0, not {value}")
        return replace(self, **changes)


def _gpt(shape: Shape, context: int) -> LanguageModel:
    return GPT(
        GPTConfig(
            n_layers=shape.layers,
            d_model=shape.hidden,
            n_heads=shape.heads,
            d_feed_forward=shape.ffn or None,
            context=context,
            vocab=shape.vocab,
            bias=bool(shape.bias),
            tied=bool(shape.tied),
            fused_attention=bool(shape.fused_attention),
        )
    )


def _llama(shape: Shape, context: int) -> LanguageModel:
    return Llama(
        LlamaConfig(
            n_layers=shape.layers,
            d_model=shape.hidden,
            n_heads=shape.heads,
            n_kv_heads=shape.kv_heads or shape.heads,
            d_feed_forward=shape.ffn or 4 * shape.hidden,
            head_dim=shape.head_dim or None,
            vocab=shape.vocab,
            context=context,
            qkv_bias=bool(shape.bias),
            qk_norm=bool(shape.qk_norm),
            joint_norm=bool(shape.joint_norm),
            tied=bool(shape.tied),
            experts=_experts(shape) if shape.experts else None,
        )
    )


def _experts(shape: Shape) -> ExpertsConfig:
    return ExpertsConfig(
        n_experts=shape.experts,
        top_k=shape.topk,
        d_expert=shape.expert_ffn or shape.ffn,
    )


def _deepseek(shape: Shape, context: int) -> LanguageModel:
    """With DeepSeek-V3's latents, and its groups of experts where there are enough for eight."""
    grouped = shape.experts % 8 == 0 and shape.experts >= 64
    return DeepSeek(
        DeepSeekConfig(
            n_layers=shape.layers,
            d_model=shape.hidden,
            d_feed_forward=shape.ffn,
            attention=LatentConfig(n_heads=shape.heads),
            experts=ExpertsConfig(
                n_experts=shape.experts,
                top_k=shape.topk,
                d_expert=shape.expert_ffn,
                sigmoid=True,
                n_groups=8 if grouped else 1,
                top_groups=4 if grouped else 1,
                scale=2.5,
            ),
            vocab=shape.vocab,
            context=context,
            n_dense=shape.dense_layers,
            n_shared=shape.shared_experts,
            n_ahead=shape.mtp,
        )
    )


def _gpt_oss(shape: Shape, context: int) -> LanguageModel:
    return GptOss(
        GptOssConfig(
            n_layers=shape.layers,
            d_model=shape.hidden,
            n_heads=shape.heads,
            n_kv_heads=shape.kv_heads or shape.heads,
            d_head=shape.head_dim or shape.hidden // shape.heads,
            experts=ExpertsConfig(
                n_experts=shape.experts,
                top_k=shape.topk,
                d_expert=shape.expert_ffn or shape.ffn,
                bias=True,
                limit=7.0,
            ),
            window=shape.window,
            vocab=shape.vocab,
            context=context,
        )
    )


FAMILIES: Mapping[str, Callable[[Shape, int], LanguageModel]] = {
    "gpt": _gpt,
    "llama": _llama,
    "deepseek": _deepseek,
    "gpt-oss": _gpt_oss,
}
"""What a Shape may be of."""
