"""The arena: symmetric tensors, put, get, signal and wait; in-place reduction; what is counted."""

import pytest
import torch

from supernode.errors import InputError
from supernode.run.fabric import Traffic

BOTH = (0, 1)


def test_put_with_signal_shows_the_receiver_the_whole_tensor(pair):
    x = torch.arange(100_000)
    sender = [
        ("empty", ((100_000,), torch.int64)),
        ("put", (x, ("result", 0), 1)),
        ("signal", (1, 7, 1)),
    ]
    receiver = [
        ("empty", ((100_000,), torch.int64)),
        ("wait", (7, 1)),
        (".clone", (("result", 0),)),
    ]
    assert torch.equal(pair.run([sender, receiver])[1][2], x)


def test_get_reads_what_the_peer_has(pair):
    def steps(rank):
        return [
            ("empty", ((3, 4), torch.float16)),
            (".fill_", (("result", 0), rank + 1.0)),
            ("barrier", (BOTH,)),
            ("get", (("result", 0), 1 - rank, torch.empty(3, 4, dtype=torch.float16))),
            ("barrier", (BOTH,)),
        ]

    results = pair.run([steps(0), steps(1)])
    assert results[0][3].unique().tolist() == [2.0]
    assert results[1][3].unique().tolist() == [1.0]


def test_peer_is_the_same_view_of_the_other_arena(pair):
    def steps(rank):
        return [
            ("empty", ((4, 6), torch.int32)),
            (".copy_", (("result", 0), torch.arange(24).view(4, 6) + 100 * rank)),
            (".t", (("result", 0),)),
            (".select", (("result", 2), 0, 5)),
            ("barrier", (BOTH,)),
            ("peer", (("result", 3), 1 - rank)),
            ("barrier", (BOTH,)),
        ]

    results = pair.run([steps(0), steps(1)])
    assert results[0][5].tolist() == [105, 111, 117, 123]
    assert results[1][5].tolist() == [5, 11, 17, 23]


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_tensor_of_the_arena_is_reduced_in_place(pair, size):
    def steps(rank):
        return [
            ("empty", ((size,), torch.float32)),
            (".copy_", (("result", 0), torch.arange(size) * (rank + 1.0))),
            ("all_reduce", (("result", 0), BOTH)),
            (".clone", (("result", 0),)),
        ]

    for results in pair.run([steps(0), steps(1)]):
        assert torch.equal(results[3], torch.arange(size) * 3.0)
        assert torch.equal(results[2], results[3])


def test_arena_tensors_at_different_offsets_and_strided_ones_are_reduced_in_place_too(pair):
    def steps(rank):
        return [
            ("empty", ((64, 64), torch.float32)),
            (".fill_", (("result", 0), 1.0)),
            (".select", (("result", 0), 0, rank)),  # another row on each rank
            ("all_reduce", (("result", 2), BOTH)),
            (".select", (("result", 0), 1, 63)),  # a column
            ("all_reduce", (("result", 4), BOTH)),
            (".clone", (("result", 0),)),
        ]

    for rank, results in enumerate(pair.run([steps(0), steps(1)])):
        want = torch.ones(64, 64)
        want[rank] = 2.0
        want[:, 63] = torch.tensor([3.0, 3.0, *[2.0] * 62])
        assert torch.equal(results[6], want)


def test_many_arena_tensors_small_and_large(pair):
    def steps(rank):
        return [
            ("empty", ((3,), torch.float32)),
            ("empty", ((100_000,), torch.float32)),
            (".fill_", (("result", 0), rank + 1.0)),
            (".fill_", (("result", 1), rank + 2.0)),
            ("all_reduce_many", ([("result", 1), ("result", 0)], BOTH)),
            (".clone", (("result", 0),)),
            (".clone", (("result", 1),)),
        ]

    for results in pair.run([steps(0), steps(1)]):
        assert results[5].tolist() == [3.0] * 3
        assert torch.equal(results[6], torch.full((100_000,), 5.0))
        assert torch.equal(results[4][0], results[6])


def test_out_takes_the_result_and_leaves_the_input(pair):
    x, out = torch.ones(10), torch.zeros(10)
    steps = [
        (".clone", (out,)),
        ("all_reduce", (x, BOTH, "sum", ("result", 0))),
        (".clone", (("result", 0),)),
    ]
    for results in pair.run([steps, steps]):
        assert results[2].tolist() == [2.0] * 10
        assert x.tolist() == [1.0] * 10


def test_stats_count_calls_and_the_bytes_of_the_algorithm(square):
    x = torch.zeros(16, 10)  # 640 bytes
    group = (0, 1, 2, 3)
    steps = [
        ("stats", ()),
        ("all_reduce", (x, group)),
        ("all_gather", (x, 0, group)),
        ("reduce_scatter", (x, 0, group)),
        ("all_to_all", (x, 0, 1, group)),
        ("all_to_all_rows", (x, [4] * 4, [4] * 4, group)),
        ("stats", ()),
    ]
    results = square.run([steps] * 4)[0]
    before, after = results[0], results[6]

    def added(name: str) -> tuple[int, int]:
        old = before.get(name, Traffic(calls=0, sent_bytes=0))
        return after[name].calls - old.calls, after[name].sent_bytes - old.sent_bytes

    assert added("all_reduce") == (1, 2 * 640 * 3 // 4)
    assert added("all_gather") == (1, 4 * 640 * 3 // 4)
    assert added("reduce_scatter") == (1, 640 * 3 // 4)
    assert added("all_to_all") == (1, 640 * 3 // 4)
    assert added("all_to_all_rows") == (1, 640 * 3 // 4)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (("empty", ((2**28,), torch.float32)), "1073741824 bytes asked, .* of 268435456 left"),
        (("peer", (torch.zeros(3), 1)), "outside the arena of rank 0"),
        (("put", (torch.zeros(3), torch.zeros(3), 1)), "outside the arena of rank 0"),
        (("signal", (2, 0, 1)), "rank 2: the world has ranks 0 to 1"),
        (("signal", (1, 256, 1)), "slot 256: a rank has slots 0 to 255"),
        (("wait", (-1, 1)), "slot -1"),
        (("barrier", ((1,),)), "must hold rank 0"),
        (("barrier", ((0, 2),)), "of 0 to 1"),
        (("all_reduce", (torch.zeros(3, device="meta"), (0, 1))), "a tensor on meta"),
        (("all_reduce", (torch.zeros(3), (0, 1), "mean")), "reduction 'mean'"),
        (("all_reduce", (torch.zeros(3, dtype=torch.int8), (0, 1))), "reduction of torch.int8"),
        (("all_reduce", (torch.zeros(3, dtype=torch.bool), (0, 1))), "sum of torch.bool"),
        (("all_reduce", (torch.zeros(3), (0, 1), "sum", torch.zeros(4))), r"float32\[4\]"),
        (("reduce_scatter", (torch.zeros(3, 4), 0, (0, 1))), "does not split into 2 equal"),
        (("all_to_all", (torch.zeros(3, 4), 0, 1, (0, 1))), "does not split into 2 equal"),
        (("all_to_all_rows", (torch.zeros(3, 4), [1, 1], [1, 1], BOTH)), r"\[1, 1\] rows sent"),
        (("all_gather", (torch.zeros(3), 1, (0, 1))), r"dim 1 of a tensor of shape \(3,\)"),
        (("all_gather", (torch.tensor(1.0), 0, (0, 1))), r"dim 0 of a tensor of shape \(\)"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_served_is_refused_before_anything_is_sent(pair, step, message):
    with pytest.raises(InputError, match=message):
        pair.run([[step], []])
    assert pair.run([[("barrier", (BOTH,))]] * 2) == [[None], [None]]
