"""A model of your own, written for one device, over two chips of this host.

Run it: `python examples/own_model.py`
"""

import torch
from torch import Tensor, nn

import supernode as sn


class Classifier(nn.Module):
    """Two layers and a loss; nothing in it knows of chips."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 128)
        self.down = nn.Linear(128, 8)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy in nats of `labels` [batch] given `x` [batch, 32]."""
        return nn.functional.cross_entropy(self.down(self.up(x).relu()), labels)


def main() -> None:
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=20)

    def train_step(x: Tensor, labels: Tensor) -> Tensor:
        loss = model(x, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        return loss.detach()

    x = torch.randn(64, 32)
    labels = x[:, :8].argmax(1)
    with sn.connect("local:2") as node:
        step = node.compile(train_step, model, optimizer, layout="tp=2")
        losses = [float(step(x, labels)) for _ in range(20)]
        step.pull()
        print(step.plan.explain("up.weight"))
    print(
        f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; in one process: {model(x, labels).item():.3f}"
    )


if __name__ == "__main__":
    main()
