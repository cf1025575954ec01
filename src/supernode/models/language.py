"""What every language model here has: its loss, sampling, and serving with a cache.

Names of tensors end in their dims: B batch, T tokens, D model, V vocabulary.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernode.models.cache import Remembers


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Which tokens a step handles: their positions `[T]` in each sequence.

    `fresh` says that they are the first ones, so that no cache is read.
    """

    positions_T: Tensor
    fresh: bool = True


class LanguageModel(nn.Module):
    """A model of the next token: `hidden` and `lm_head` are its own, the rest is common to all.

    A model that serves has a cache in each layer (`remember`), and in `held` the number of tokens
    that they hold.
    """

    context: int
    vocab: int
    lm_head: nn.Linear
    held: Tensor

    @abstractmethod
    def hidden(self, tokens_BT: Tensor, at: Tokens) -> Tensor:
        """What the head reads: `[B, T, D]` of `tokens_BT`, whose positions are `at`."""

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """The scores `[B, T, V]` of the token that follows each of `tokens_BT`."""
        return self.lm_head(self.hidden(tokens_BT, first_tokens(tokens_BT)))

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean cross-entropy in nats per token, a float32 scalar whatever the model's dtype."""
        return cross_entropy(self.logits(tokens_BT), targets_BT)

    def remember(self, batch: int, places: int) -> None:
        """Makes a serving model of it: a cache for `batch` sequences of up to `places` tokens."""
        self.register_buffer("held", torch.zeros(1, dtype=torch.int64), persistent=False)
        for layer in self.modules():
            if isinstance(layer, Remembers):
                layer.add_cache(batch, places)
        like = next(self.parameters())
        self.to(device=like.device, dtype=like.dtype)

    @torch.no_grad()
    def prefill(self, tokens_BT: Tensor) -> Tensor:
        """Scores `[B, V]` of what follows the prompts `tokens_BT`, which the caches then hold."""
        x_BTD = self.hidden(tokens_BT, first_tokens(tokens_BT))
        self.held.fill_(tokens_BT.shape[1])
        return self.lm_head(x_BTD[:, -1])

    @torch.no_grad()
    def decode(self, tokens_BT: Tensor) -> Tensor:
        """Scores `[B, T, V]` of what follows each of the next tokens (one, or a few guesses)."""
        ahead_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        at = Tokens(positions_T=self.held + ahead_T, fresh=False)
        scores_BTV = self.lm_head(self.hidden(tokens_BT, at))
        self.held.add_(tokens_BT.shape[1])
        return scores_BTV

    @torch.no_grad()
    def generate(
        self, tokens_BT: Tensor, count: int, *, generator: torch.Generator, temperature: float = 0.8
    ) -> Tensor:
        """`tokens_BT` followed by `count` sampled tokens: `[B, T + count]`."""
        for _ in range(count):
            logits_BTV = self.logits(tokens_BT[:, -self.context :])
            chances_BV = (logits_BTV[:, -1].float() / temperature).softmax(-1)
            next_B1 = torch.multinomial(chances_BV, 1, generator=generator)
            tokens_BT = torch.cat([tokens_BT, next_B1], dim=1)
        return tokens_BT

    def parameter_count(self) -> int:
        """The number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())


def first_tokens(tokens_BT: Tensor) -> Tokens:
    """The positions of tokens that start their sequences."""
    return Tokens(positions_T=torch.arange(tokens_BT.shape[1], device=tokens_BT.device))


def cross_entropy(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The mean over all tokens, in float32."""
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
