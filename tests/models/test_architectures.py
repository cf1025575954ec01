"""What GPT and Llama have in common, and each against an independent reference."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from numerics import assert_close
from supernode.models import GPT, GPTConfig, LanguageModel, Llama, LlamaConfig
from supernode.models.rotary import RMSNorm, normed_together, rotary_table, rotate

VOCAB, CONTEXT = 64, 16
LLAMA = LlamaConfig(
    n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_feed_forward=48, vocab=VOCAB, context=CONTEXT
)


def gpt() -> GPT:
    return GPT(GPTConfig(n_layers=2, d_model=32, n_heads=4, context=CONTEXT, vocab=VOCAB))


def llama() -> Llama:
    return Llama(LLAMA)


@pytest.fixture(params=[gpt, llama])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    make: Callable[[], LanguageModel] = request.param
    torch.manual_seed(0)
    return make()


def tokens(length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(VOCAB, (3, length), generator=torch.Generator().manual_seed(1))


def test_a_token_sees_only_those_before_it(model: LanguageModel):
    changed = tokens()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB
    before, after = model.logits(tokens()), model.logits(changed)
    assert_close(after[:, :9], before[:, :9], reduced=32)
    assert not torch.allclose(after[:, 9:], before[:, 9:])


def test_the_loss_is_the_mean_negative_log_chance_of_the_targets(model: LanguageModel):
    chances = model.logits(tokens()).softmax(-1)
    targets = tokens().roll(-1, 1)
    want = -chances.gather(-1, targets[..., None]).log().mean()
    assert_close(model(tokens(), targets), want, reduced=VOCAB)


def test_a_fresh_model_is_about_as_good_as_a_guess(model: LanguageModel):
    loss = model(tokens(), tokens()).detach()
    assert float(loss) == pytest.approx(math.log(VOCAB), rel=0.1)


def test_every_parameter_gets_a_gradient(model: LanguageModel):
    model(tokens(), tokens().roll(-1, 1)).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_a_bfloat16_model_has_a_float32_loss(model: LanguageModel):
    want = model(tokens(), tokens())
    got = model.to(torch.bfloat16)(tokens(), tokens())
    assert got.dtype == torch.float32
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=0.02)


def test_generate_continues_past_the_context_and_follows_the_generator(model: LanguageModel):
    first, again, other = (
        model.generate(tokens(4), CONTEXT, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first.shape == (3, 4 + CONTEXT)
    assert torch.equal(first[:, :4], tokens(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rotary_scores_depend_on_the_distance_alone():
    positions = torch.arange(CONTEXT)
    cos, sin = rotary_table(positions, LLAMA.d_head, LLAMA.rope_theta, dtype=torch.float32)
    q, k = torch.randn(2, LLAMA.d_head, generator=torch.Generator().manual_seed(2))
    turned_q, turned_k = (
        rotate(x.expand(1, 1, CONTEXT, LLAMA.d_head), cos, sin)[0, 0] for x in (q, k)
    )
    scores = turned_q @ turned_k.T
    for distance in range(CONTEXT):
        diagonal = scores.diagonal(distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), reduced=64)
    assert not torch.allclose(scores.diagonal(0)[0], scores.diagonal(3)[0])


def test_gpt_equals_its_formula_written_out():
    torch.manual_seed(4)
    model = gpt()
    x = model.token_embedding.weight[tokens()] + model.position_embedding.weight[:CONTEXT]
    future = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1)
    for block in model.blocks:
        a, y = block.attention, F.layer_norm(x, (32,))
        q, k, v = (
            (y @ m.weight.T).view(3, CONTEXT, 4, 8).permute(0, 2, 1, 3)
            for m in (a.query, a.key, a.value)
        )
        scores = (q @ k.transpose(-1, -2) / math.sqrt(8)).masked_fill(future, float("-inf"))
        mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(3, CONTEXT, 32)
        x = x + mixed @ a.output.weight.T
        h = F.layer_norm(x, (32,)) @ block.mlp.up.weight.T
        x = x + (h * (1 + torch.erf(h / math.sqrt(2))) / 2) @ block.mlp.down.weight.T
    want = F.layer_norm(x, (32,)) @ model.lm_head.weight.T
    assert_close(model.logits(tokens()), want, reduced=256)


def test_normed_together_is_each_normed_by_its_own_mean():
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 64), 3 * torch.randn(2, 5, 16)
    norms = RMSNorm(64, 1e-5), RMSNorm(16, 1e-5)
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    got = normed_together(norms[0], q, norms[1], k)
    for x, norm, found in zip((q, k), norms, got, strict=True):
        assert_close(found, F.rms_norm(x, x.shape[-1:], norm.weight, 1e-5), reduced=64)
