"""Which state lives on the host: counts of steps, and nothing that the chip computes with."""

import torch
from torch import Tensor, nn

from supernode.capture import capture
from supernode.ir import Program
from supernode.models import recipe
from supernode.partition import partition
from supernode.run.engine.numbers import host_numbers


def names(program: Program) -> set[str]:
    return {program.inputs[i].name for i in host_numbers(program)}


def test_counts_of_steps_are_numbers_for_the_host() -> None:
    job = recipe("gpt-tiny").build()
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    weights = [name for name, _ in job.model.named_parameters()]
    assert len(weights) > 20
    for layout in ("", "dp=2,micro=2", "fsdp=2,recompute=full"):
        local = partition(program, layout).local
        assert names(local) == {f"optimizer.step[{name}]" for name in weights}, layout


def test_what_meets_a_tensor_of_the_chip_stays_there() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.seen, self.mean = (nn.Buffer(torch.ones(())) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)  # a number
            self.mean.mul_(0.9).add_(0.1 * x.mean())  # made of what the chip computes
            return x * self.scale  # met by what it computes

    model = Scaled()
    program = capture(lambda x: model(x), model, (), (torch.ones(4),)).program
    assert {"scale", "seen", "mean"} <= {port.name for port in program.inputs}
    assert names(program) == {"seen"}


def test_what_is_returned_too_stays_on_the_chip() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = nn.Buffer(torch.ones(()))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.seen.add_(1)
            return x + 1, self.seen.clone()

    model = Counting()
    program = capture(lambda x: model(x), model, (), (torch.ones(4),)).program
    assert names(program) == set()
