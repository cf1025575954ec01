"""One rank of PyTorch's own parallelism; `bench/training.py` starts it under torchrun.

`torchrun -m bench.torch_rank ADDRESS ddp|fsdp2|pipeline RECIPE BATCH SEQUENCE FUSED PARTS`:
connects to ADDRESS, and for each number read there does so many steps and answers with the seconds
they took and their losses. FUSED is 1 for AdamW's fused kernel, else 0; PARTS is how many
microbatches a pipeline has.
"""

import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from multiprocessing.connection import Client, Connection

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from bench.torch_pipeline import staged_step
from supernode.models import Job, Recipe, recipe
from supernode.models.gpt import GPT


def main(argv: list[str]) -> None:
    """Serves rounds until the socket closes."""
    address, kind, name, batch, sequence, fused, parts = argv
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = recipe(name)
    job = found.build(int(batch), sequence=int(sequence))
    step = train_step(kind, job, found, fused=fused == "1", parts=int(parts))
    with Client(address, "AF_UNIX") as driver:
        _serve(driver, job, step, whole=kind == "pipeline")
    dist.destroy_process_group()


def train_step(
    kind: str, job: Job, found: Recipe, *, fused: bool, parts: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's train step over all ranks."""
    how = found.training

    def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            module.parameters(),
            lr=how.learning_rate,
            betas=how.betas,
            weight_decay=how.weight_decay,
            fused=fused or None,
        )

    model: nn.Module = job.model
    if kind == "pipeline":
        assert isinstance(model, GPT)
        return staged_step(model, parts, optimizer_of, how.clip)
    if kind == "fsdp2":
        for block in job.model.get_submodule("blocks").children():
            fully_shard(block)
        fully_shard(model)
    else:
        model = DistributedDataParallel(model)
    optimizer = optimizer_of(model)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = model(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), how.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def _serve(
    driver: Connection, job: Job, step: Callable[[Tensor, Tensor], Tensor], *, whole: bool
) -> None:
    """Rounds of steps, each rank on its part of the batch, or on the `whole` in a pipeline, where
    the last rank knows the loss."""
    assert job.batches is not None, "the recipe has no data"
    rank, world = int(os.environ["RANK"]), dist.get_world_size()
    batches = job.batches()
    while True:
        try:
            count: int = driver.recv()
        except EOFError:
            return
        taken = list(islice(batches, count))
        parts = taken if whole else [[x.chunk(world)[rank] for x in batch] for batch in taken]
        dist.barrier()
        start = time.perf_counter()
        losses = [step(tokens, targets) for tokens, targets in parts]
        seconds = time.perf_counter() - start
        known = torch.stack(losses)
        if whole:
            dist.all_reduce(known)
        driver.send((seconds, known.tolist()))


if __name__ == "__main__":
    main(sys.argv[1:])
