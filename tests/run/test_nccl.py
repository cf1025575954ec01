"""The fabric on torch.distributed: on GPUs where there are two, else the same code on gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from supernode.run import connect
from supernode.run.fabric import ArenaSet

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys, torch
from dataclasses import replace
from supernode.run.fabric import Letter, SharedMemoryFabric
from supernode.run.fabric.nccl import NcclFabric

rank, backend, *fds = sys.argv[1:]
shared = SharedMemoryFabric.attach(list(map(int, fds)), int(rank))
fabric = NcclFabric.attach(shared, 2, backend=backend)
device = "cpu"
if backend == "nccl":
    torch.cuda.set_device(int(rank))
    device = "cuda"
each = [torch.arange(8.0).view(2, 4) + 10 * r for r in range(2)]
mine, both = each[int(rank)].to(device), (0, 1)

def check(got, want):
    assert torch.equal(got.cpu(), want), (got, want)

total = each[0] + each[1]
out = torch.empty_like(mine)
check(fabric.all_reduce_many((mine,), both)[0], total)
assert fabric.all_reduce_many((mine.t(),), both, "max", (out.t(),))[0].shape == (4, 2)
check(out, each[1])
check(mine, each[int(rank)])
check(fabric.reduce_scatter_many((mine,), (1,), both)[0], total.chunk(2, 1)[int(rank)])
check(fabric.all_gather_many((mine,), (1,), both)[0], torch.cat(each, 1))
pieces = [x.chunk(2, 1)[int(rank)] for x in each]
check(fabric.all_to_all(mine, 1, 0, both), torch.cat(pieces, 0))
sent = [[2, 0], [1, 1]]
arrived = [x.split(sizes)[int(rank)] for x, sizes in zip(each, sent)]
received = [len(x) for x in arrived]
check(fabric.all_to_all_rows(mine, sent[int(rank)], received, both), torch.cat(arrived))
stats = fabric.stats()
assert stats["all_reduce"].calls == 2 and stats["all_reduce"].sent_bytes == 64, stats
assert stats["all_gather"].sent_bytes == 32, stats

# Both ways at once, received in another order than sent, twice; a letter is free when it is sent.
keys = {0: (7, 3, 5), 1: (7, 2)}
letters = [
    Letter(source=r, target=1 - r, key=key, shape=(4, 2), dtype=torch.float32)
    for r in range(2) for key in keys[r]
]
rows = (slice(1, 5), slice(0, 2))
part = replace(letters[0], key=9, piece=(5, 2), box=rows)
letters += [replace(part, source=r, target=1 - r) for r in both]
box = fabric.mailbox(letters, both)
me, other = int(rank), 1 - int(rank)
for number in (1, 2):
    box.begin(number)
    for key in keys[me]:
        letter = each[me].t().to(device) * key + number
        box.send(letter, other, key)
        letter.zero_()
    box.send(each[me].t().to(device), other, 9)
    check(box.receive_piece([other], 9)[1:], each[other].t())
    for key in reversed(keys[other]):
        got = box.receive(other, key)
        assert got.is_contiguous()
        check(got, each[other].t() * key + number)
torch.distributed.destroy_process_group()
print("done")
"""


def _check(backend: str) -> None:
    with ArenaSet.create(2, 2**24) as arenas:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(rank), backend, *map(str, arenas.fds)],
                pass_fds=arenas.fds,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]
        for process in processes:
            text, _ = process.communicate(timeout=60)
            assert text.splitlines()[-1] == "done", text


@pytest.mark.slow
def test_collectives_on_gloo():
    _check("gloo")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_collectives_on_nccl():
    _check("nccl")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_steps_on_a_gpu_equal_plain_torch():
    from run.plans import FEATURES, training_plan

    w, x = torch.randn(FEATURES, FEATURES), torch.randn(8, FEATURES)
    with connect("cuda:1") as node:
        loaded = node.load(training_plan(1), {"w": w, "count": 0.0, "r": 0.01})
        loss, _ = loaded.step({"x": x})
        torch.testing.assert_close(loss, (x @ w).sum(), rtol=1e-4, atol=1e-4)
        loaded.push({"w": w})
        assert torch.equal(loaded.pull()["w"], w)
