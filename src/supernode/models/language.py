"""What every language model here has: logits from the model, the loss and sampling from them.

Names of tensors end in their dims: B batch, T tokens, V vocabulary.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LanguageModel(nn.Module):
    """A model of the next token: `logits` is its own, loss and sampling are common to all."""

    context: int
    vocab: int

    @abstractmethod
    def logits(self, tokens_BT: Tensor) -> Tensor:
        """The scores `[B, T, V]` of the token that follows each of `tokens_BT`."""

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean cross-entropy in nats per token, a float32 scalar whatever the model's dtype."""
        logits_BTV = self.logits(tokens_BT)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())

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
