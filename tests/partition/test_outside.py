"""Models and steps of others, each with something that no model of the zoo has, against PyTorch.

Three steps in plain PyTorch, by the captured Program, and by plans of it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from emulate import run_plan, run_program
from supernode.partition import partition
from zoo import ZooStep
from zoo_runs import After, Subject, assert_near

pytestmark = pytest.mark.zoo
FLOAT = torch.float64


def _f(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def _ids(*shape: int, below: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(0))


def _mlp(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inner, 32), nn.GELU(), nn.Linear(32, outer))


class Policy(nn.Module):
    """Proximal policy optimisation; `torch.distributions` checks what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = _mlp(16, 4), _mlp(16, 1)

    def forward(self, seen: Tensor, action: Tensor, gain: Tensor, old: Tensor) -> Tensor:
        chosen = torch.distributions.Categorical(logits=self.actor(seen))
        ratio = (chosen.log_prob(action) - old).exp()
        clipped = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        value = F.mse_loss(self.critic(seen).squeeze(-1), gain)
        return value - clipped - 0.01 * chosen.entropy().mean()


class Codes(nn.Module):
    """A quantised autoencoder: distances of all pairs, gradients past the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.codes = _mlp(16, 8), _mlp(8, 16), nn.Embedding(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        code = self.codes(torch.cdist(z, self.codes.weight).argmin(-1))
        kept = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())
        return F.mse_loss(self.decode(z + (code - z).detach()), x) + kept


class Recommender(nn.Module):
    """Bags of embeddings, and the products of all pairs of features."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(20, 8, mode=mode) for _ in range(3))
        self.dense, self.top = _mlp(16, 8), _mlp(8 + 6, 1)

    def forward(self, x: Tensor, ids: Tensor, y: Tensor) -> Tensor:
        dense = self.dense(x)
        rows = torch.stack([dense, *(bag(ids[:, i]) for i, bag in enumerate(self.bags))], 1)
        i, j = torch.tril_indices(4, 4, -1)
        pairs = torch.bmm(rows, rows.transpose(1, 2))[:, i, j]
        out = self.top(torch.cat([dense, pairs], 1)).squeeze(1)
        return F.binary_cross_entropy_with_logits(out, y)


class Spectrum(nn.Module):
    """A Fourier neural operator, its weights of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 5, dtype=torch.complex128) / 8)
        self.lift, self.project = nn.Linear(1, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.lift(x).transpose(1, 2)
        modes = torch.fft.rfft(hidden)
        kept = torch.einsum("bif,iof->bof", modes[..., :5], self.weight)
        mixed = torch.cat([kept, torch.zeros_like(modes[..., 5:])], -1)
        out = self.project((hidden + torch.fft.irfft(mixed, n=16)).transpose(1, 2))
        return F.mse_loss(out, y)


class Critic(nn.Module):
    """Spectral and weight norm, as generative networks and vocoders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Linear(16, 32))
        self.second = parametrizations.weight_norm(nn.Linear(32, 8))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(self.second(F.leaky_relu(self.first(x), 0.2)), y)


class Warp(nn.Module):
    """Reads an image at places it finds itself."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.mix = nn.Linear(3 * 36, 6), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        moved = self.places(x.flatten(1)).view(-1, 2, 3) / 10 + torch.eye(2, 3, dtype=x.dtype)
        grid = F.affine_grid(moved, list(x.shape), align_corners=False)
        return F.mse_loss(self.mix(F.grid_sample(x, grid, align_corners=False)), y)


def _published(config: str, model: str, **sizes: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        return getattr(transformers, model)(getattr(transformers, config)(**small | sizes))

    return make


SPEECH = {
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "intermediate_size": 48,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
} | dict.fromkeys(
    ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "activation_dropout"), 0.0
)
IMAGES = {
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 12,
    "use_relative_position_bias": True,
    "drop_path_rate": 0.0,
}
Entry = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]
OUTSIDE: dict[str, Entry] = {
    "policy": (Policy, (_f(8, 16), _ids(8, below=4), _f(8), _f(8, seed=1))),
    "codes": (Codes, (_f(8, 16),)),
    "bags-mean": (
        lambda: Recommender("mean"),
        (_f(8, 16), _ids(8, 3, 5, below=20), (_f(8) > 0).to(FLOAT)),
    ),
    "bags-max": (
        lambda: Recommender("max"),
        (_f(8, 16), _ids(8, 3, 5, below=20), (_f(8) > 0).to(FLOAT)),
    ),
    "spectrum": (Spectrum, (_f(4, 16, 1), _f(4, 16, 1, seed=1))),
    "critic": (Critic, (_f(8, 16), _f(8, 8, seed=1))),
    "warp": (Warp, (_f(4, 3, 6, 6), _f(4, 3, 6, 6, seed=1))),
    # Weight norm of its convolution for positions.
    "hubert": (
        _published("HubertConfig", "HubertForSequenceClassification", **SPEECH),
        (_f(4, 400), _ids(4, below=2)),
    ),
    # Positions kept by `lru_cache` from the recorded run.
    "beit": (
        _published("BeitConfig", "BeitForImageClassification", **IMAGES),
        (_f(4, 3, 32, 32), _ids(4, below=12)),
    ),
    # `alibi`, and one head of keys for all queries.
    "falcon": (
        _published("FalconConfig", "FalconForCausalLM", vocab_size=64, alibi=True),
        (_ids(4, 8, below=64), _ids(4, 8, below=64)),
    ),
}


def _step(name: str) -> ZooStep:
    make, args = OUTSIDE[name]
    torch.manual_seed(0)
    built = make()
    is_complex = any(param.is_complex() for param in built.parameters())
    model = (built.double() if is_complex else built.to(FLOAT)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(*given: Tensor) -> Tensor:
        found = model(given[0], labels=given[1]) if hasattr(model, "config") else model(*given)
        loss = found if isinstance(found, Tensor) else found.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return ZooStep(model=model, optimizer=optimizer, step=step, args=args)


def _pairs(after: After) -> After:
    """With complex numbers as pairs."""
    state = {k: torch.view_as_real(v) if v.is_complex() else v for k, v in after.state.items()}
    return After(losses=after.losses, state=state)


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_models(name: str) -> None:
    subject = Subject(_step(name))
    program = subject.captured.program
    want = _pairs(subject.interpreted(lambda values: run_program(program, values)))
    for layout in ("dp=2", "fsdp=2", "tp=2"):
        plan = partition(program, layout)
        got = subject.interpreted(lambda values, plan=plan: run_plan(plan, values))
        assert_near(_pairs(got), want, layout)
    eager = _pairs(subject.eager())
    kept = {key: value for key, value in want.state.items() if key in eager.state}
    assert_near(After(losses=want.losses, state=kept), eager, "plain PyTorch")
