"""Each family against the implementation in transformers, with the same weights; and serving."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models.reference import (
    CONTEXT,
    VOCAB,
    copy_gpt_oss,
    copy_weights,
    deepseek_like,
    gpt2,
    gpt_oss_like,
    llama_like,
    randomised,
)
from numerics import assert_close
from supernode.models import (
    DeepSeek,
    DeepSeekConfig,
    ExpertsConfig,
    GptOss,
    LanguageModel,
    LatentConfig,
    Shape,
    Tokens,
)

SMALL = {"layers": 2, "hidden": 32, "heads": 4, "vocab": VOCAB}
GROUPED = {"family": "llama", **SMALL, "kv_heads": 2, "ffn": 48}
MIXED = GROUPED | {"ffn": 16, "experts": 4, "topk": 2}
LLAMAS = {
    "Llama": Shape(**GROUPED),
    "Mistral": Shape(**GROUPED, tied=True),
    "Qwen2": Shape(**GROUPED, bias=True),
    "Qwen3": Shape(**GROUPED, qk_norm=True, head_dim=16),
    "Mixtral": Shape(**MIXED),
    "Qwen3Moe": Shape(**MIXED, qk_norm=True, head_dim=16),
}
GPT_OSS = Shape(
    family="gpt-oss", **SMALL, kv_heads=2, head_dim=16, ffn=24, experts=4, topk=2, window=5
)


def test_attention_op_by_op_is_that_of_the_kernel() -> None:
    shape = Shape(family="gpt", **SMALL, bias=True)
    fused, apart = (replace(shape, fused_attention=each).model(CONTEXT) for each in (True, False))
    apart.load_state_dict(fused.state_dict())
    tokens = torch.randint(VOCAB, (2, CONTEXT))
    torch.testing.assert_close(apart(tokens, tokens), fused(tokens, tokens))


def deepseek(n_groups: int = 2, n_ahead: int = 1) -> DeepSeek:
    return DeepSeek(
        DeepSeekConfig(
            n_layers=3,
            d_model=32,
            d_feed_forward=48,
            attention=LatentConfig(
                n_heads=4, d_query_latent=16, d_latent=8, d_plain=8, d_rotary=4, d_value=8
            ),
            experts=ExpertsConfig(
                n_experts=8,
                top_k=2,
                d_expert=16,
                sigmoid=True,
                n_groups=n_groups,
                top_groups=max(1, n_groups // 2),
                scale=2.5,
            ),
            vocab=VOCAB,
            context=CONTEXT,
            n_dense=1,
            n_ahead=n_ahead,
        )
    )


MODELS = {name: lambda shape=shape: shape.model(CONTEXT) for name, shape in LLAMAS.items()} | {
    "GPT": lambda: Shape(family="gpt", **SMALL, bias=True, tied=True).model(CONTEXT),
    "DeepSeek": lambda: deepseek(),
    "GptOss": lambda: GPT_OSS.model(CONTEXT),
}


def tokens(length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCAB, (3, length), generator=torch.Generator().manual_seed(1))


def made(name: str) -> LanguageModel:
    torch.manual_seed(3)
    return randomised(MODELS[name]())


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("kind", LLAMAS)
def test_a_llama_shape_equals_its_model_of_transformers(kind: str):
    model = made(kind)
    reference = llama_like(LLAMAS[kind], kind)
    copy_weights(model, reference)
    assert_close(model.logits(tokens()), reference(tokens()).logits, reduced=256)


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [1, 2, 4])
def test_deepseek_equals_that_of_transformers(n_groups: int):
    torch.manual_seed(3)
    model = randomised(deepseek(n_groups))
    reference = deepseek_like(model)
    copy_weights(model, reference)
    assert_close(model.logits(tokens()), reference(tokens()).logits, reduced=256)


@pytest.mark.slow
def test_gpt_with_biases_equals_gpt2_of_transformers():
    model = made("GPT")
    assert_close(model.logits(tokens()), gpt2(model)(tokens()), reduced=256)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 4, 5, 8, 20])
def test_gpt_oss_equals_that_of_transformers(window: int):
    """Scores and gradients, with windows that divide the tokens and that don't; 20 is all."""
    torch.manual_seed(3)
    shape = replace(GPT_OSS, window=window)
    model = randomised(shape.model(CONTEXT))
    assert isinstance(model, GptOss)
    reference = gpt_oss_like(shape)
    copy_gpt_oss(model, reference)
    scores, want = model.logits(tokens()), reference(tokens()).logits
    assert_close(scores, want, reduced=256)
    direction = torch.randn(scores.shape, generator=torch.Generator().manual_seed(5))
    scores.backward(direction)
    want.backward(direction)
    graded = gpt_oss_like(shape)
    mine = {name: p.grad for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(mine[name])
    copy_gpt_oss(model, graded)
    for name, parameter in reference.named_parameters():
        assert_close(graded.get_parameter(name), parameter.grad, reduced=4096)


@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_decode_give_the_scores_of_the_whole_sequence(name: str):
    model = made(name)
    want = model.logits(tokens())
    model.remember(3, CONTEXT)
    first = model.prefill(tokens()[:, :9])
    assert_close(first, want[:, 8], reduced=256)
    for at in (9, 10):
        assert_close(model.decode(tokens()[:, at : at + 1])[:, 0], want[:, at], reduced=256)
    guessed = model.decode(tokens()[:, 11:14])
    assert_close(guessed, want[:, 11:14], reduced=256)
    assert int(model.held) == 14


def test_a_second_prefill_starts_anew():
    model = made("Qwen3")
    model.remember(3, CONTEXT)
    model.prefill(tokens()[:, :12])
    again = model.prefill(tokens(5))
    assert_close(again, made("Qwen3").logits(tokens(5))[:, -1], reduced=256)


def test_the_module_ahead_predicts_what_follows_the_next_token():
    model = deepseek()
    targets = tokens().roll(-1, 1)
    plain = F.cross_entropy(model.logits(tokens()).flatten(0, 1), targets.flatten())
    x, (module,) = model.layers(tokens(), at=_at(CONTEXT)), model.ahead
    joined = torch.cat([module.token_norm(model.embedding(targets)), module.stream_norm(x)], -1)
    y = module.block(module.join(joined), _at(CONTEXT), *model.turns(_at(CONTEXT), x.dtype))
    scores = model.lm_head(model.norm(y))[:, :-1]
    ahead = F.cross_entropy(scores.flatten(0, 1), targets[:, 1:].flatten())
    assert_close(model(tokens(), targets), plain + 0.3 * ahead, reduced=256)
    assert deepseek(n_ahead=0)(tokens(), targets).dim() == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name: str):
    model = made(name)
    model(tokens(), tokens().roll(-1, 1)).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def _at(length: int) -> Tokens:
    return Tokens(positions_T=torch.arange(length))


@pytest.mark.parametrize("name", ["Mixtral", "DeepSeek"])
def test_no_token_is_dropped_however_unbalanced_the_experts_are(name: str):
    """Every token to one pair of experts: the sum over experts, written out one by one."""
    experts = made(name).blocks[-1].mlp
    x = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        experts.router.weight.zero_()
        experts.router.weight[1:3] = 5.0
    x = x.abs()
    shares, chosen = experts.router(x.flatten(0, 1))
    assert set(chosen.flatten().tolist()) <= {1, 2} or name == "DeepSeek"
    want = torch.zeros(15, 32)
    for n, token in enumerate(x.flatten(0, 1)):
        for share, e in zip(shares[n], chosen[n], strict=True):
            h = F.silu(experts.gate[e] @ token) * (experts.up[e] @ token)
            want[n] += share * (experts.down[e] @ h)
    assert_close(experts(x), want.view(5, 3, 32), reduced=256)
