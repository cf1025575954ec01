"""Small models of transformers with the weights of ours: what the recipes are compared with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from supernode.models import GPT, DeepSeek, GptOss, LanguageModel, Llama, Shape

VOCAB, CONTEXT = 64, 16
_COMMON = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT}
_ROPE = {"rope_type": "default"}
_WORDS = {
    "embedding": "model.embed_tokens",
    "blocks": "model.layers",
    "attention": "self_attn",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "query_norm": "q_norm",
    "key_norm": "k_norm",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
    "query_down": "q_a_proj",
    "query_up": "q_b_proj",
    "latent_down": "kv_a_proj_with_mqa",
    "latent_norm": "kv_a_layernorm",
    "router": "gate",
    "shared": "mlp.shared_experts",
}


def randomised(model: LanguageModel) -> LanguageModel:
    """The model with every parameter moved, so that none has an effect by chance alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def llama_like(shape: Shape, kind: str) -> nn.Module:
    """The model of transformers that a `llama` shape is, without weights."""
    import transformers

    settings = {
        **_COMMON,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_parameters": _ROPE | {"rope_theta": 500_000.0},
        "tie_word_embeddings": bool(shape.tied),
    }
    if shape.head_dim:
        settings["head_dim"] = shape.head_dim
    if shape.experts:
        settings["num_experts_per_tok"] = shape.topk
        many = "num_local_experts" if kind == "Mixtral" else "num_experts"
        settings |= {many: shape.experts, "moe_intermediate_size": shape.ffn}
        settings |= {"norm_topk_prob": True, "mlp_only_layers": []} if kind == "Qwen3Moe" else {}
    config = getattr(transformers, f"{kind}Config")(**settings)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def deepseek_like(model: DeepSeek) -> nn.Module:
    """DeepSeek-V3 of transformers in the sizes of `model`, without weights."""
    import transformers

    config, latent, experts = model.config, model.config.attention, model.config.experts
    built = transformers.DeepseekV3Config(
        **_COMMON,
        hidden_size=config.d_model,
        intermediate_size=config.d_feed_forward,
        moe_intermediate_size=experts.d_expert,
        num_hidden_layers=config.n_layers,
        num_attention_heads=latent.n_heads,
        num_key_value_heads=latent.n_heads,
        n_shared_experts=config.n_shared,
        n_routed_experts=experts.n_experts,
        routed_scaling_factor=experts.scale,
        q_lora_rank=latent.d_query_latent,
        kv_lora_rank=latent.d_latent,
        qk_rope_head_dim=latent.d_rotary,
        qk_nope_head_dim=latent.d_plain,
        v_head_dim=latent.d_value,
        n_group=experts.n_groups,
        topk_group=experts.top_groups,
        num_experts_per_tok=experts.top_k,
        first_k_dense_replace=config.n_dense,
        rms_norm_eps=config.norm_epsilon,
        rope_parameters=_ROPE | {"rope_theta": config.rope_theta},
        num_mtp_layers=0,
    )
    return transformers.DeepseekV3ForCausalLM(built)


def gpt_oss_like(shape: Shape) -> nn.Module:
    """The gpt-oss of transformers in the sizes of a shape, without weights."""
    import transformers

    config = transformers.GptOssConfig(
        **_COMMON,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        num_local_experts=shape.experts,
        num_experts_per_tok=shape.topk,
        sliding_window=shape.window,
        rope_parameters=_ROPE | {"rope_theta": 150_000.0},
        attn_implementation="eager",
    )
    return transformers.GptOssForCausalLM(config)


def copy_gpt_oss(model: GptOss, reference: nn.Module) -> None:
    """As `copy_weights`: its experts are `[in, out]`, gate and up in turn."""
    ours = {name: p.detach() for name, p in model.named_parameters()}
    theirs = dict(reference.named_parameters())
    for name, weight in ours.items():
        stem, _, last = name.rpartition(".")
        where = their_name(name).replace("mlp.gate.", "mlp.router.")
        if last in ("up", "up_bias"):
            continue
        if last in ("gate", "gate_bias"):
            pair = torch.stack([weight, ours[f"{stem}.{last.replace('gate', 'up')}"]], dim=2)
            joined, tail = pair.flatten(1, 2), last.removeprefix("gate")
            where, weight = f"{their_name(stem)}.experts.gate_up_proj{tail}", joined
        elif last in ("down", "down_bias"):
            where = f"{their_name(stem)}.experts.down_proj{last.removeprefix('down')}"
        with torch.no_grad():
            there = theirs.pop(where)
            there.copy_(weight.mT if "experts" in where and weight.dim() == 3 else weight)
    assert not theirs, f"not set: {sorted(theirs)}"


def copy_weights(model: Llama | DeepSeek, reference: nn.Module) -> None:
    """Writes every weight of `model` to where `reference` has it; asserts that none is left."""
    theirs = dict(reference.named_parameters())
    ours = {name: p.detach() for name, p in model.named_parameters() if "ahead" not in name}
    for name in list(ours):
        joined = _joined(name, ours)
        if joined is not None:
            where, weight = joined
            if isinstance(model, DeepSeek):
                where = where.replace("q_norm", "q_a_layernorm")
            with torch.no_grad():
                theirs.pop(where).copy_(weight)
    assert not theirs, f"not set: {sorted(theirs)}"


def _joined(name: str, ours: dict[str, Tensor]) -> tuple[str, Tensor] | None:
    """The name and weight of the reference; None for the second of two that it has as one."""
    stem, _, last = name.rpartition(".")
    if last in ("gate", "up", "down"):  # a stack of experts, not a projection
        if last == "up":
            return None
        where = f"{their_name(stem)}.experts"
        if last == "down":
            return f"{where}.down_proj", ours[name]
        return f"{where}.gate_up_proj", torch.cat([ours[name], ours[f"{stem}.up"]], dim=1)
    if stem.endswith(("key_up", "value_up")):
        if stem.endswith("value_up"):
            return None
        heads = [
            ours[f"{stem.replace('key_up', up)}.weight"].unflatten(0, (4, -1))
            for up in ("key_up", "value_up")
        ]
        where = their_name(stem.replace(".key_up", ""))
        return f"{where}.kv_b_proj.weight", torch.cat(heads, dim=1).flatten(0, 1)
    return their_name(name), ours[name]


def their_name(name: str) -> str:
    """How transformers calls one of our parameters."""
    if name in ("norm.weight", "lm_head.weight"):
        return f"model.{name}" if name[0] == "n" else name
    return ".".join(_WORDS.get(word, word) for word in name.split("."))


def gpt2(model: GPT) -> Callable[[Tensor], Tensor]:
    """The logits of GPT-2 of transformers with the weights of `model`, which has biases."""
    import transformers

    width = model.norm.weight.shape[0]
    reference = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCAB,
            n_positions=model.context,
            n_embd=width,
            n_layer=len(model.blocks),
            n_head=model.blocks[0].attention.n_heads,
            activation_function="gelu",
        )
    ).eval()
    theirs, ours = dict(reference.named_parameters()), dict(model.named_parameters())
    with torch.no_grad():
        theirs.pop("transformer.wte.weight").copy_(ours["token_embedding.weight"])
        theirs.pop("transformer.wpe.weight").copy_(ours["position_embedding.weight"])
        for kind in ("weight", "bias"):
            theirs.pop(f"transformer.ln_f.{kind}").copy_(ours[f"norm.{kind}"])
            for i in range(len(model.blocks)):
                for where, names in _GPT2.items():
                    parts = [ours[f"blocks.{i}.{name}.{kind}"] for name in names]
                    # Its matrices are [in, out].
                    whole = torch.cat(parts).T if parts[0].dim() > 1 else torch.cat(parts)
                    theirs.pop(f"transformer.h.{i}.{where}.{kind}").copy_(whole)
    assert not theirs
    return lambda tokens: reference(tokens).logits


_GPT2 = {
    "ln_1": ("attention_norm",),
    "attn.c_attn": ("attention.query", "attention.key", "attention.value"),
    "attn.c_proj": ("attention.output",),
    "ln_2": ("mlp_norm",),
    "mlp.c_fc": ("mlp.up",),
    "mlp.c_proj": ("mlp.down",),
}
