"""A rank that dies, stops or does something else: everyone learns of it soon, and why."""

import os
import time
from pathlib import Path

import pytest
import torch

from supernode.run.fabric import ArenaSet, FabricAborted, FabricMismatch, FabricTimeout

ALL = (0, 1, 2, 3)
SOON_S = 1.0


@pytest.fixture
def broken(square):
    """A crew that the test may leave in the middle of a collective."""
    yield square
    square.arenas.reset()
    assert square.run([[("barrier", (ALL,))]] * 4) == [[None]] * 4


@pytest.mark.parametrize(
    "waiting",
    [
        ("barrier", (ALL,)),
        ("wait", (3, 1)),
        ("all_reduce", (torch.ones(100_000), ALL)),
        ("all_gather", (torch.ones(10), 0, ALL)),
    ],
    ids=["barrier", "wait", "all_reduce", "all_gather"],
)
def test_an_abort_by_the_parent_stops_those_who_sleep_in_a_call(broken, waiting):
    broken.start([[waiting], [waiting], [waiting], []])
    time.sleep(0.05)  # longer than any rank spins
    start = time.perf_counter()
    broken.arenas.abort(3, "out of memory")
    *errors, last = broken.replies(SOON_S)
    assert time.perf_counter() - start < SOON_S
    assert last == []
    for rank, error in enumerate(errors):
        assert isinstance(error, FabricAborted)
        assert error.wrong == "the run was stopped: rank 3: out of memory"
        assert error.where == f"rank {rank}"
        assert error.asked.startswith(waiting[0])
    assert broken.arenas.aborted() == "rank 3: out of memory"


def test_an_abort_by_a_rank_stops_the_others_and_every_later_call(broken):
    barrier = ("barrier", (ALL,))
    broken.start([[barrier], [barrier], [barrier], [("sleep", (0.05,)), ("abort", (3, "NaN"))]])
    *errors, last = broken.replies(SOON_S)
    assert [type(error) for error in errors] == [FabricAborted] * 3
    assert last == [None, None]
    with pytest.raises(FabricAborted, match="rank 3: NaN"):
        broken.run([[("all_reduce", (torch.ones(1), ALL))]] * 4)


def test_the_first_abort_is_the_one_that_is_told(broken):
    broken.arenas.abort(2, "first")
    broken.arenas.abort(1, "second " * 200)
    assert broken.arenas.aborted() == "rank 2: first"


def test_ranks_in_other_collectives_are_told_both_calls(broken):
    x = torch.ones(6)
    group = (0, 1)
    broken.start([[("all_reduce", (x, group))], [("all_gather", (x, 0, group))], [], []])
    left, right, _, _ = broken.replies()
    assert isinstance(left, FabricMismatch)
    assert isinstance(right, FabricMismatch)
    assert left.wrong == (
        "rank 0 calls all_reduce (sum, float32) of 24 bytes on 2 ranks, "
        "rank 1 calls all_gather of 24 bytes on 2 ranks"
    )


def test_matrices_that_lie_otherwise_are_told(broken):
    x = torch.ones(6, 4)
    given = [x.t().contiguous(), x.t(), x, x]
    broken.start([[("all_gather", (given[rank], 0, (0, 1)))] for rank in (0, 1)] + [[], []])
    assert "rank 1 calls all_gather (transposed) of 96 bytes" in str(broken.replies()[0])


def test_other_sizes_in_the_same_collective_are_told(broken):
    sizes = {rank: torch.ones(6 + rank // 3) for rank in ALL}
    broken.start([[("all_reduce", (sizes[rank], ALL, "max"))] for rank in ALL])
    assert "rank 3 calls all_reduce (max, float32) of 28 bytes" in str(broken.replies()[0])


@pytest.mark.slow
def test_a_deadline_names_those_who_have_not_arrived(new_crew):
    crew = new_crew(3, deadline_s=0.2)
    start = time.perf_counter()
    crew.start([[("all_reduce", (torch.ones(4), (0, 1, 2)))], [], []])
    error = crew.replies()[0]
    assert 0.2 <= time.perf_counter() - start < SOON_S
    assert isinstance(error, FabricTimeout)
    assert error.wrong == "ranks 1, 2 have not arrived after 0.2 s"
    assert error.asked == "all_reduce over ranks (0, 1, 2)"
    crew.arenas.reset()
    crew.start([[("wait", (3, 5))], [("signal", (0, 3, 4))], []])
    error = crew.replies()[0]
    assert isinstance(error, FabricTimeout)
    assert error.wrong == "slot 3 has 4, not 5, after 0.2 s"


@pytest.mark.slow
def test_a_killed_rank_leaves_its_arena_to_the_process_that_takes_its_place(new_crew):
    crew, group = new_crew(2), (0, 1)
    symmetric = ("empty", ((4,), torch.float32))
    reduce = ("all_reduce", (torch.ones(100_000), group))
    fill = (".fill_", (("result", 0), 7.0))
    crew.start([[symmetric, reduce, reduce], [symmetric, fill, reduce, ("sleep", (60.0,))]])
    time.sleep(0.3)
    crew.processes[1].kill()
    crew.processes[1].wait()
    start = time.perf_counter()
    crew.arenas.abort(1, "killed by signal 9")
    error, gone = crew.replies(SOON_S)
    assert time.perf_counter() - start < SOON_S
    assert isinstance(error, FabricAborted)
    assert "rank 1: killed by signal 9" in error.wrong
    assert gone is None
    crew.replace(1)
    crew.arenas.reset()
    left, right = crew.run([[reduce], [symmetric, (".clone", (("result", 0),)), reduce]])
    assert right[1].tolist() == [7.0] * 4
    assert torch.equal(left[0], torch.full((100_000,), 2.0))


def test_no_file_and_no_descriptor_is_left_behind():
    def traces() -> tuple[list[str], int]:
        folder = Path("/proc/self/fd")
        links = [os.readlink(fd) for fd in folder.iterdir() if fd.is_symlink()]
        return sorted(os.listdir("/dev/shm")), sum("memfd:supernode" in link for link in links)

    before = traces()
    with ArenaSet.create(3, 2**24) as arenas:
        assert traces() == (before[0], before[1] + 5)  # a map holds the control segment once more
        assert len(arenas.fds) == 4
    del arenas
    assert traces() == before
