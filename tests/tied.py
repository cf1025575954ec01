"""A model whose first and last layer share a weight, with a train step."""

import torch
from torch import Tensor, nn

from zoo import ZooStep


def tied(dtype: torch.dtype = torch.float64) -> ZooStep:
    """Logits by the table of the embedding: the ends of the pipeline share a weight."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(64, 32)
            self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.table(tokens)
            for layer in self.layers:
                x = x + torch.relu(layer(x))
            return x @ self.table.weight.t()

    torch.manual_seed(0)
    model = Tied().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(tokens: Tensor) -> Tensor:
        logits = model(tokens)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    tokens = torch.randint(64, (4, 8), generator=torch.Generator().manual_seed(1))
    return ZooStep(model=model, optimizer=optimizer, step=step, args=(tokens,))
