"""A GPT in stages by `torch.distributed.pipelining`, one rank a stage, with a train step."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from supernode.models.gpt import GPT
from supernode.models.language import cross_entropy, first_tokens


class Stage(nn.Module):
    """An equal share of the layers of `model`; the first one has the embeddings, the last one the
    head."""

    def __init__(self, model: GPT, number: int, stages: int) -> None:
        super().__init__()
        layers = list(model.blocks)
        self.blocks = nn.ModuleList(
            layers[number * len(layers) // stages : (number + 1) * len(layers) // stages]
        )
        if number == 0:
            self.token_embedding = model.token_embedding
            self.position_embedding = model.position_embedding
        if number == stages - 1:
            self.norm, self.lm_head = model.norm, model.lm_head

    def forward(self, x: Tensor) -> Tensor:
        """Tokens or what the stage before gives, to what the next one takes or the logits."""
        at = first_tokens(x)
        if hasattr(self, "token_embedding"):
            x = self.token_embedding(x) + self.position_embedding(at.positions_T)
        for block in self.blocks:
            x = block(x, at)
        return self.lm_head(self.norm(x)) if hasattr(self, "lm_head") else x


def staged_step(
    model: GPT,
    parts: int,
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    clip: float,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The train step of this rank's stage, in 1F1B with so many microbatches; the loss is that of
    the whole batch on the last rank, and zero on the others."""
    rank, world = dist.get_rank(), dist.get_world_size()
    module = Stage(model, rank, world)
    stage = PipelineStage(module, rank, world, torch.device("cpu"))
    schedule = Schedule1F1B(stage, parts, loss_fn=cross_entropy)
    optimizer = optimizer_of(module)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        losses: list[Tensor] = []
        if rank == 0:
            schedule.step(tokens)
        else:
            schedule.step(target=targets, losses=losses)
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        square = nn.utils.get_total_norm(grads).square()
        dist.all_reduce(square)
        nn.utils.clip_grads_with_norm_(module.parameters(), clip, square.sqrt())
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack(losses).mean().detach() if losses else torch.zeros(())

    return step
