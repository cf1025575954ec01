"""Small models of many kinds with a train step each: what people train, shrunk, random weights.

`model(name)` builds one by its published configuration class, with sizes that two chips divide;
`zoo_step(name)` gives it a whole train step over one batch of two sequences or images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.vision import ConvNeXt, ResNet, Stages, Swin, UNet

Loss = Callable[..., Tensor]
BATCH, TOKENS, VOCAB, PIXELS = 2, 8, 64, 32

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCAB,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 16}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
VISION_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 4,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "window_size": 16,
    "fullatt_block_indexes": [1],
}
GRID = torch.tensor([[1, 4, 4]] * BATCH)
"""Frames, rows and columns of patches in each image: known when the step is written."""
SIGLIP = SMALL | {
    "model_type": "siglip_vision_model",
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 32,
    "vision_use_head": False,
}
IMAGE, BEGIN, END, VIDEO = 62, 60, 61, 63
"""Tokens that stand for a piece of an image, open and close one, and stand for one of a video."""
CNN = Stages(depths=(1, 2), widths=(16, 32), classes=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooStep:
    """A model with a plain train step over `args`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[..., Tensor]
    args: tuple[Any, ...]


def _transformers(config: str, model: str, **sizes: Any) -> Callable[..., nn.Module]:
    def make(**changes: Any) -> nn.Module:
        import transformers

        built = getattr(transformers, config)(**sizes | changes)
        return getattr(transformers, model)(built)

    return make


def _ids(*shape: int, below: int = VOCAB) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(0))


def _pixels(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _language(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=tokens, use_cache=False).loss


def _masked(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=tokens).loss


def _speech(model: nn.Module, features: Tensor, tokens: Tensor) -> Tensor:
    return model(input_features=features, labels=tokens, use_cache=False).loss


def _pictures(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    return model(pixel_values=pixels, labels=labels).loss


def _looked_at(model: nn.Module, tokens: Tensor, pixels: Tensor) -> Tensor:
    out = model(
        input_ids=tokens, labels=tokens, pixel_values=pixels, image_grid_thw=GRID, use_cache=False
    )
    return out.loss


def _described(model: nn.Module, tokens: Tensor, pixels: Tensor) -> Tensor:
    kinds = (tokens == IMAGE).long()
    out = model(
        input_ids=tokens, labels=tokens, pixel_values=pixels, token_type_ids=kinds, use_cache=False
    )
    return out.loss


def _scores(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(pixels), labels)


def tokens(batch: int = BATCH) -> tuple[Tensor, ...]:
    """Sequences for a language model."""
    return (_ids(batch, TOKENS),)


def _images(batch: int = BATCH) -> tuple[Tensor, ...]:
    return _pixels(batch, 3, PIXELS, PIXELS), _ids(batch, below=12)


def _labelled_pixels(batch: int = BATCH) -> tuple[Tensor, ...]:
    return _pixels(batch, 3, PIXELS, PIXELS), _ids(batch, PIXELS, PIXELS, below=12)


def _sound(batch: int = BATCH) -> tuple[Tensor, ...]:
    return _pixels(batch, 8, 32), _ids(batch, TOKENS)


def _tokens_with_images(batch: int = BATCH) -> tuple[Tensor, ...]:
    """Both images are in the first sequence: they are not split as the sequences are."""
    tokens = _ids(batch, 16, below=50)
    for start in (1, 8):
        tokens[0, start], tokens[0, start + 1 : start + 5], tokens[0, start + 5] = BEGIN, IMAGE, END
    return tokens, _pixels(BATCH * 16, 3 * 2 * 4 * 4)


def _tokens_after_an_image(batch: int = BATCH) -> tuple[Tensor, ...]:
    tokens = _ids(batch, 12, below=50)
    tokens[:, :4] = IMAGE
    return tokens, _pixels(batch, 3, 16, 16)


Entry = tuple[Callable[..., nn.Module], Loss, Callable[..., tuple[Tensor, ...]]]

ZOO: dict[str, Entry] = {
    "llama": (_transformers("LlamaConfig", "LlamaForCausalLM", **GROUPED), _language, tokens),
    "gpt2": (
        _transformers(
            "GPT2Config",
            "GPT2LMHeadModel",
            n_embd=32,
            n_layer=2,
            n_head=4,
            vocab_size=VOCAB,
            n_positions=16,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        ),
        _language,
        tokens,
    ),
    "mixtral": (
        _transformers(
            "MixtralConfig",
            "MixtralForCausalLM",
            **GROUPED,
            num_local_experts=4,
            num_experts_per_tok=2,
        ),
        _language,
        tokens,
    ),
    "qwen3-moe": (
        _transformers(
            "Qwen3MoeConfig", "Qwen3MoeForCausalLM", **GROUPED, **EXPERTS, num_experts=4, head_dim=8
        ),
        _language,
        tokens,
    ),
    "gpt-oss": (
        _transformers(
            "GptOssConfig",
            "GptOssForCausalLM",
            **GROUPED,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=4,
            initializer_range=0.05,  # so that no experts of a token tie in bfloat16
        ),
        _language,
        tokens,
    ),
    "deepseek-v3": (
        _transformers(
            "DeepseekV3Config",
            "DeepseekV3ForCausalLM",
            **GROUPED | {"num_key_value_heads": 4},
            **EXPERTS,
            **LATENT,
        ),
        _language,
        tokens,
    ),
    "gemma3": (
        _transformers("Gemma3TextConfig", "Gemma3ForCausalLM", **GROUPED, head_dim=8),
        _language,
        tokens,
    ),
    "bert": (
        _transformers(
            "BertConfig",
            "BertForMaskedLM",
            **SMALL,
            max_position_embeddings=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        _masked,
        tokens,
    ),
    "t5": (
        _transformers(
            "T5Config",
            "T5ForConditionalGeneration",
            d_model=32,
            d_ff=48,
            d_kv=8,
            num_layers=2,
            num_heads=4,
            vocab_size=VOCAB,
            decoder_start_token_id=0,
            dropout_rate=0.0,
        ),
        _language,
        tokens,
    ),
    "mamba2": (
        _transformers(
            "Mamba2Config",
            "Mamba2ForCausalLM",
            hidden_size=32,
            num_hidden_layers=2,
            vocab_size=VOCAB,
            num_heads=4,
            head_dim=16,
            state_size=8,
            n_groups=2,
            chunk_size=4,
        ),
        _language,
        tokens,
    ),
    "qwen2.5-vl": (
        _transformers(
            "Qwen2_5_VLConfig",
            "Qwen2_5_VLForConditionalGeneration",
            text_config=GROUPED
            | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
            vision_config=VISION_TOWER,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=BEGIN,
            vision_end_token_id=END,
        ),
        _looked_at,
        _tokens_with_images,
    ),
    "paligemma": (
        _transformers(
            "PaliGemmaConfig",
            "PaliGemmaForConditionalGeneration",
            vision_config=SIGLIP,
            text_config=GROUPED | {"model_type": "gemma", "head_dim": 8},
            image_token_index=IMAGE,
            projection_dim=32,
        ),
        _described,
        _tokens_after_an_image,
    ),
    "whisper": (
        _transformers(
            "WhisperConfig",
            "WhisperForConditionalGeneration",
            vocab_size=VOCAB,
            num_mel_bins=8,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_source_positions=16,
            max_target_positions=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
        _speech,
        _sound,
    ),
    "vit": (
        _transformers(
            "ViTConfig",
            "ViTForImageClassification",
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=PIXELS,
            patch_size=8,
            num_labels=12,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        _pictures,
        _images,
    ),
    "resnet": (lambda: ResNet(CNN), _scores, _images),
    "convnext": (lambda: ConvNeXt(CNN), _scores, _images),
    "swin": (lambda: Swin(CNN, d_head=8, window=4), _scores, _images),
    "unet": (lambda: UNet((8, 16, 32), classes=12), _scores, _labelled_pixels),
}

CNNS = ("resnet", "convnext", "swin", "unet")


def zoo_step(
    name: str,
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = BATCH,
    autocast: bool = False,
    **changes: Any,
) -> ZooStep:
    """The model `name` with one train step: AdamW, or SGD with momentum for our vision models.

    The model and what it is given are in `dtype`; with `autocast` the forward is in bfloat16 where
    PyTorch holds that to be safe. `changes` replaces fields of the
    model's configuration.
    """
    make, loss, arguments = ZOO[name]
    torch.manual_seed(0)
    model = make(**changes).to(dtype).train()
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
        if name in CNNS
        else torch.optim.AdamW(model.parameters(), lr=1e-3)
    )

    def step(*given: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss(model, *given)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.detach()

    args = arguments(batch)
    given = tuple(arg.to(dtype) if arg.is_floating_point() else arg for arg in args)
    return ZooStep(model=model, optimizer=optimizer, step=step, args=given)
