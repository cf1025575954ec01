"""What a serving model remembers between steps: the keys and values of the tokens it has seen.

Names of tensors end in their dims: B batch, H query heads, G key-value heads, T the tokens of this
step, S the places of the cache, K one head.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, scale: float | None = None) -> Tensor:
    """Causal attention of the tokens of one step among themselves; H is a multiple of G."""
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGTK, v_BGTK, is_causal=True, scale=scale, enable_gqa=True
    )


class Remembers(nn.Module):
    """A layer that, to serve, keeps something of the tokens it has seen."""

    @abstractmethod
    def add_cache(self, batch: int, places: int) -> None:
        """Gives it a cache for so many sequences of up to so many tokens."""


class KVCache(nn.Module):
    """Keys and values of up to `places` tokens of each sequence; what a layer adds to state.

    Both buffers are written in place, so that between steps they stay where they are.
    """

    keys_BGSK: Tensor
    values_BGSK: Tensor

    def __init__(self, batch: int, heads: int, places: int, width: int) -> None:
        super().__init__()
        for name in ("keys_BGSK", "values_BGSK"):
            self.register_buffer(name, torch.zeros(batch, heads, places, width), persistent=False)

    def attend(
        self, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, positions_T: Tensor, *, fresh: bool
    ) -> Tensor:
        """Remembers the tokens of this step at `positions_T`; attention `[B, H, T, K]` of them.

        `fresh` says that nothing was remembered before, so that they attend to each other alone;
        else they attend to every place up to their own.
        """
        self.keys_BGSK.index_copy_(2, positions_T, k_BGTK)
        self.values_BGSK.index_copy_(2, positions_T, v_BGTK)
        if fresh:
            return attend(q_BHTK, k_BGTK, v_BGTK)
        return F.scaled_dot_product_attention(
            q_BHTK,
            self.keys_BGSK,
            self.values_BGSK,
            attn_mask=seen(positions_T, self.keys_BGSK.shape[2]),
            enable_gqa=True,
        )


def seen(positions_T: Tensor, places: int) -> Tensor:
    """Which of so many places each token may look at: `[T, S]`, true up to its own."""
    return torch.arange(places, device=positions_T.device)[None, :] <= positions_T[:, None]
