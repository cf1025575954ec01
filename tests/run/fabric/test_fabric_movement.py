"""Collectives that move without reducing, the many-tensor forms, and odd shapes."""

import pytest
import torch
from torch import Tensor

from supernode.run.fabric import FabricMismatch

ALL = (0, 1, 2, 3)
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)


def numbered(rank: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    count = torch.Size(shape).numel()
    return (torch.arange(count) + 1000 * rank).reshape(shape).to(dtype)


def pieces_joined(inputs: list[Tensor], rank: int, split_dim: int, concat_dim: int) -> Tensor:
    return torch.cat([x.chunk(len(inputs), split_dim)[rank] for x in inputs], concat_dim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_all_gather_joins_along_any_dim(square, dim, dtype):
    inputs = [numbered(rank, (3, 5, 7), dtype) for rank in ALL]
    for got in square.same(lambda rank: ("all_gather", (inputs[rank], dim, ALL))):
        assert torch.equal(got, torch.cat(inputs, dim))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_all_gather_of_more_than_a_window(square, dim):
    inputs = [numbered(rank, (30, 50, 70), torch.int64) for rank in ALL]
    for got in square.same(lambda rank: ("all_gather", (inputs[rank], dim, ALL))):
        assert torch.equal(got, torch.cat(inputs, dim))


@pytest.mark.parametrize("shape", [(4, 8, 12), (40, 80, 12)])
@pytest.mark.parametrize("split_dim", [0, 1, 2])
@pytest.mark.parametrize("concat_dim", [0, 1, -1])
def test_all_to_all_between_any_two_dims(square, shape, split_dim, concat_dim):
    inputs = [numbered(rank, shape) for rank in ALL]
    got = square.same(lambda rank: ("all_to_all", (inputs[rank], split_dim, concat_dim, ALL)))
    for rank in ALL:
        assert torch.equal(got[rank], pieces_joined(inputs, rank, split_dim, concat_dim))


@pytest.mark.parametrize("dim", [0, 1])
def test_transposed_matrices_are_joined_as_they_lie(square, dim):
    inputs = [numbered(rank, (8, 12)).t() for rank in ALL]
    many = [(inputs[rank], numbered(rank, (3, 5))) for rank in ALL]
    program = [
        [
            ("all_gather_many", (many[rank], (dim, dim), ALL)),
            (".__getitem__", (("result", 0), 0)),
            (".__getitem__", (("result", 0), 1)),
            (".stride", (("result", 1),)),
        ]
        for rank in ALL
    ]
    for _, got, other, stride in square.run(program):
        assert torch.equal(got, torch.cat(inputs, dim))
        assert torch.equal(other, torch.cat([numbered(rank, (3, 5)) for rank in ALL], dim))
        assert stride[0] == 1


def test_inputs_need_not_be_contiguous(square):
    inputs = [numbered(rank, (8, 12)).t() for rank in ALL]
    strided = [numbered(rank, (8, 24))[:, ::2] for rank in ALL]
    program = [
        [
            ("all_gather", (inputs[rank], 0, ALL)),
            ("reduce_scatter", (inputs[rank], 1, ALL)),
            ("all_reduce", (strided[rank], ALL)),
            ("all_to_all", (strided[rank], 0, 1, ALL)),
        ]
        for rank in ALL
    ]
    for rank, (gathered, scattered, reduced, exchanged) in enumerate(square.run(program)):
        assert torch.equal(gathered, torch.cat(inputs, 0))
        assert torch.equal(scattered, sum(inputs).chunk(4, 1)[rank])
        assert torch.equal(reduced, sum(strided))
        assert torch.equal(exchanged, pieces_joined(strided, rank, 0, 1))


def test_many_tensors_at_once_are_what_they_are_one_by_one(square):
    shapes = [(4, 8), (12, 4), (0, 4), (4, 20_000), (8, 4)]
    dtypes = [torch.float32, torch.int64, torch.float32, torch.float32, torch.int64]
    dims = [0, 1, 1, 1, 0]
    inputs = [[numbered(r, s, d) for s, d in zip(shapes, dtypes, strict=True)] for r in ALL]
    program = []
    for rank in ALL:
        xs = inputs[rank]
        steps = [
            ("all_reduce_many", (xs, ALL)),
            ("reduce_scatter_many", (xs, dims, ALL)),
            ("all_gather_many", (xs, dims, ALL)),
        ]
        steps += [("all_reduce", (x, ALL)) for x in xs]
        steps += [("reduce_scatter", (x, dim, ALL)) for x, dim in zip(xs, dims, strict=True)]
        steps += [("all_gather", (x, dim, ALL)) for x, dim in zip(xs, dims, strict=True)]
        program.append(steps)
    for results in square.run(program):
        many = [x for result in results[:3] for x in result]
        assert len(many) == len(results[3:]) == 15
        assert all(torch.equal(x, y) for x, y in zip(many, results[3:], strict=True))
        assert torch.equal(many[0], sum(inputs[rank][0] for rank in ALL))


def test_empty_and_zero_dimensional_tensors(pair):
    both = (0, 1)
    program = [
        [
            ("all_reduce", (torch.tensor(rank + 1.5), both)),
            ("all_reduce", (torch.empty(0, 3), both)),
            ("all_gather", (torch.empty(2, 0), 0, both)),
            ("reduce_scatter", (torch.empty(0, 3), 0, both)),
            ("all_to_all", (torch.empty(4, 0), 0, 1, both)),
            ("all_gather", (torch.tensor([rank]), 0, both)),
        ]
        for rank in both
    ]
    for results in pair.run(program):
        assert results[0].item() == 4.0
        assert results[0].shape == ()
        assert [tuple(x.shape) for x in results[1:5]] == [(0, 3), (4, 0), (0, 3), (2, 0)]
        assert results[5].tolist() == [0, 1]


def test_a_group_of_one_gives_a_copy(pair):
    x = numbered(0, (4, 6))
    program = [
        [
            ("all_reduce", (x, (rank,))),
            ("all_gather", (x, 1, (rank,))),
            ("reduce_scatter", (x, 0, (rank,))),
            ("all_to_all", (x, 0, 1, (rank,))),
            ("barrier", ((rank,),)),
        ]
        for rank in (0, 1)
    ]
    for results in pair.run(program):
        assert all(torch.equal(y, x) for y in results[:4])


def rows_exchanged(inputs: list[Tensor], sizes: list[list[int]], rank: int) -> Tensor:
    return torch.cat([x.split(row)[rank] for x, row in zip(inputs, sizes, strict=True)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes",
    [
        [[1, 2, 3, 4], [4, 0, 0, 1], [0, 0, 0, 0], [2, 2, 2, 2]],
        [[0, 900, 0, 0], [0, 1100, 0, 0], [0, 3, 0, 0], [0, 1000, 0, 0]],  # all to one, in chunks
        [[0, 0, 0, 0]] * 4,
    ],
)
def test_all_to_all_of_as_many_rows_as_each_has(square, sizes, dtype):
    inputs = [numbered(rank, (sum(sizes[rank]), 17), dtype) for rank in ALL]
    received = [list(column) for column in zip(*sizes, strict=True)]
    got = square.same(
        lambda rank: ("all_to_all_rows", (inputs[rank], sizes[rank], received[rank], ALL))
    )
    for rank in ALL:
        assert torch.equal(got[rank], rows_exchanged(inputs, sizes, rank))
    back = square.same(
        lambda rank: ("all_to_all_rows", (got[rank], received[rank], sizes[rank], ALL))
    )
    for rank in ALL:
        assert torch.equal(back[rank], inputs[rank])


def test_rows_that_two_ranks_count_differently_are_refused(new_crew):
    crew = new_crew(2)
    x = torch.zeros(3, 4)
    steps = [("all_to_all_rows", (x, [1, 2], [1, given], (0, 1))) for given in (1, 2)]
    with pytest.raises(FabricMismatch, match="rank 0 calls all_to_all_rows of 32 bytes on 2"):
        crew.run([[step] for step in steps])
