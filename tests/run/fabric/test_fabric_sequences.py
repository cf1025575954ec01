"""Random programs on a 2x2 mesh: rows, columns and other groups, interleaved, out of step."""

import random

import pytest
import torch
from torch import Tensor

WORLD = (0, 1, 2, 3)
PARTITIONS = (
    ((0, 1), (2, 3)),  # rows
    ((0, 2), (1, 3)),  # columns
    ((0, 3), (1, 2)),
    (WORLD,),
    ((0,), (1, 2, 3)),
    ((0, 1),),  # the others go on
    ((1, 2, 3),),
)
KINDS = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "barrier")
ROWS = 12  # divides by every size of a group


def reference(kind: str, inputs: list[Tensor], place: int) -> Tensor | None:
    if kind == "barrier":
        return None
    if kind == "all_gather":
        return torch.cat(inputs, 1)
    if kind == "all_to_all":
        return torch.cat([x.chunk(len(inputs), 0)[place] for x in inputs], 1)
    total = inputs[0]
    for x in inputs[1:]:
        total = total + x
    return total if kind == "all_reduce" else total.chunk(len(inputs), 0)[place]


def random_programs(seed: int, length: int):
    """For each rank its steps, with sleeps among them, and what each step must give."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    programs = [[] for _ in WORLD]
    wants = [[] for _ in WORLD]
    for _ in range(length):
        kind, partition = draw.choice(KINDS), draw.choice(PARTITIONS)
        width = draw.choice((1, 3, 64, 500, 4000))  # 4000 x 12 floats: several chunks
        extra = {"all_reduce": (), "barrier": (), "all_to_all": (0, 1)}.get(
            kind, (1,) if kind == "all_gather" else (0,)
        )
        for group in partition:
            inputs = [torch.randn(ROWS, width, generator=generator) for _ in group]
            for place, rank in enumerate(group):
                if draw.random() < 0.2:
                    programs[rank].append(("sleep", (draw.random() * 0.003,)))
                    wants[rank].append(None)
                first = () if kind == "barrier" else (inputs[place],)
                programs[rank].append((kind, (*first, *extra, group)))
                wants[rank].append(reference(kind, inputs, place))
    return programs, wants


@pytest.mark.parametrize("seed", range(8))
def test_random_collectives_over_interleaved_groups(square, seed):
    programs, wants = random_programs(seed, length=60)
    for _ in range(2):
        results = square.run(programs)
        for rank in WORLD:
            for step, got, want in zip(programs[rank], results[rank], wants[rank], strict=True):
                same = got is want if want is None else torch.equal(got, want)
                assert same, f"rank {rank}: {step[0]} over {step[1][-1]}"


def test_a_window_is_not_refilled_while_a_slow_rank_of_another_group_reads_it(square):
    """Rank 0 meets 1, then 2 thrice, which needs the window that 1 may still be reading."""
    x = [torch.full((10_000,), float(rank)) for rank in WORLD]
    row, column = (0, 1), (0, 2)
    programs = [
        [("all_gather", (x[0], 0, row)), *[("all_gather", (x[0] + 10, 0, column))] * 3],
        [("all_gather", (x[1], 0, row))],
        [("all_gather", (x[2], 0, column))] * 3,
        [],
    ]
    for _ in range(100):
        _, right, below, _ = square.run(programs)
        assert torch.equal(right[0], torch.cat([x[0], x[1]]))
        assert torch.equal(below[-1], torch.cat([x[0] + 10, x[2]]))
