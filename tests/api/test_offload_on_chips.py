"""Values in other places on real chips: the bits of plain PyTorch, and of a layout in memory."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from supernode import connect
from supernode.api import Node
from supernode.capture import capture
from supernode.errors import ChipFailed, DoesNotFit
from supernode.models import Job, recipe
from supernode.partition import partition
from supernode.trace import MEMORY

STEPS = 3


@pytest.fixture(scope="module")
def one() -> Iterator[Node]:
    with connect("cpu:1") as node:
        yield node


@pytest.fixture(scope="module")
def two() -> Iterator[Node]:
    with connect("cpu:2") as node:
        yield node


def job() -> Job:
    torch.manual_seed(0)
    return recipe("gpt-tiny").build()


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    kept = [value for each in optimizer.state.values() for value in each.values()]
    return [value.clone() for value in (*model.state_dict().values(), *kept)]


def trained(node: Node, layout: str) -> tuple[list[float], list[Tensor]]:
    made = job()
    step = node.compile(made.step, made.model, made.optimizer, layout=layout)
    losses = [float(step(*made.inputs)) for _ in range(STEPS)]
    step.pull()
    return losses, state_of(made.model, made.optimizer)


def plain() -> tuple[list[float], list[Tensor]]:
    made = job()
    losses = [float(made.step(*made.inputs)) for _ in range(STEPS)]
    return losses, state_of(made.model, made.optimizer)


def check(got: tuple[list[float], list[Tensor]], want: tuple[list[float], list[Tensor]]) -> None:
    assert got[0] == want[0]
    assert len(got[1]) == len(want[1]) > 70
    assert all(torch.equal(a, b) for a, b in zip(got[1], want[1], strict=True))


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("offload=optimizer", marks=pytest.mark.zoo),
        pytest.param("offload=all", marks=pytest.mark.zoo),
        pytest.param("recompute=full,offload=all", marks=pytest.mark.slow),
    ],
)
def test_one_chip_gives_the_bits_of_plain_pytorch(one: Node, line: str) -> None:
    check(trained(one, line), plain())


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        pytest.param("fsdp=2,micro=2,recompute=full", "", marks=pytest.mark.slow),
        pytest.param("dp=2", "@peers", marks=pytest.mark.zoo),
        pytest.param("pp=2,micro=2", "", marks=pytest.mark.zoo),
        pytest.param("pp=2,vp=2,micro=2", "@peers", marks=pytest.mark.slow),
    ],
)
def test_two_chips_give_the_bits_that_they_give_in_memory(
    two: Node, layout: str, place: str
) -> None:
    check(trained(two, f"{layout},offload=all{place}"), trained(two, layout))


@pytest.fixture
def gpu() -> Iterator[Node]:
    with connect("cuda:1") as node:
        yield node


@pytest.mark.gpu
@pytest.mark.parametrize("line", ["offload=optimizer", "offload=all", "recompute=full,offload=all"])
def test_a_gpu_gives_the_bits_that_it_gives_in_memory(gpu: Node, line: str) -> None:
    check(trained(gpu, line), trained(gpu, ""))


@pytest.mark.gpu
def test_checkpoints_of_a_gpu_go_on_on_processors(gpu: Node, one: Node, tmp_path: Path) -> None:
    check_checkpoints(gpu, one, tmp_path, "offload=all", "")


@pytest.mark.slow
def test_checkpoints_know_no_place(one: Node, two: Node, tmp_path: Path) -> None:
    check_checkpoints(one, two, tmp_path, "dp=2,offload=optimizer@peers", "fsdp=2")


def check_checkpoints(one: Node, other: Node, folder: Path, *of_other: str) -> None:
    """Saved where state is in memory, gone on with where it is not, and the other way round."""
    want = plain()[0]
    layouts = {one: ("", "offload=all"), other: of_other}
    for name, (first, second) in {"there": (one, other), "back": (other, one)}.items():
        made, again = job(), job()
        saving = first.compile(made.step, made.model, made.optimizer, layout=layouts[first][0])
        losses = [float(saving(*made.inputs)) for _ in range(2)]
        saving.save(folder / name, done=2)
        line = layouts[second][1]
        going_on = second.compile(again.step, again.model, again.optimizer, layout=line)
        going_on.prepare(*again.inputs)
        saving.save(folder / f"{name}-again", done=2)
        going_on.load(folder / name)
        losses.append(float(going_on(*again.inputs)))
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(want), rtol=1e-5, atol=0)


def rooms() -> int:
    """How many files of memory for values in other places this process holds or has mapped."""
    found = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(str(fd.readlink()))
    return sum("supernode-host" in line for line in found)


@pytest.mark.slow
def test_a_killed_chip_loses_nothing_and_leaves_no_memory() -> None:
    made = job()
    before = rooms()
    with connect("cpu:2") as node:
        step = node.compile(made.step, made.model, made.optimizer, layout="fsdp=2,offload=all")
        for _ in range(2):
            step(*made.inputs)
        assert rooms() > before
        kept = step.state_dict()
        os.kill(node._chips.pids[1], signal.SIGKILL)
        with pytest.raises(ChipFailed, match="chip 1 was ended by SIGKILL"):
            step(*made.inputs)
        after = step.state_dict()
        assert all(torch.equal(kept[name], after[name]) for name in kept)
    assert rooms() == before


@pytest.mark.slow
def test_a_state_four_times_what_a_chip_may_hold_trains_exactly(one: Node) -> None:
    """gpt-mini: 130 MB of weights and moments on a chip that may use a quarter of that."""
    made, want = (recipe("gpt-mini").build(batch=2, sequence=64) for _ in range(2))
    weights = sum(weight.nbytes for weight in made.model.parameters())
    may_use = 3 * weights / 4  # AdamW has two moments for each weight
    step = one.compile(made.step, made.model, made.optimizer, memory=may_use)
    for _ in range(2):
        assert float(step(*made.inputs)) == float(want.step(*want.inputs))
    assert step.plan.layout == "recompute=full,offload=optimizer+parameters+gradients"
    trace = step.traced_memory(*made.inputs)[1]
    assert trace.peak(MEMORY, 0) <= may_use
    want.step(*want.inputs)
    step.pull()
    got = state_of(made.model, made.optimizer)
    assert sum(value.nbytes for value in got) > 4 * may_use - 1e6
    pairs = zip(got, state_of(want.model, want.optimizer), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_so_do_two_chips_with_all_of_the_state_each(two: Node) -> None:
    made, want = (recipe("gpt-mini").build(batch=2, sequence=64) for _ in range(2))
    may_use = 3 * sum(weight.nbytes for weight in made.model.parameters()) / 4
    lines = {"dp=2": may_use, "dp=2,recompute=none": None}
    losses = [
        [float(step(*each.inputs)) for _ in range(2)]
        for each, (line, most) in zip((made, want), lines.items(), strict=True)
        for step in [two.compile(each.step, each.model, each.optimizer, layout=line, memory=most)]
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_more_than_a_chip_may_hold_is_refused(one: Node) -> None:
    made = job()
    step = one.compile(
        made.step, made.model, made.optimizer, layout="offload=optimizer", memory=1e6
    )
    with pytest.raises(DoesNotFit, match=r"needs .* on each chip, 1 MB are allowed; most for"):
        step(*made.inputs)


@pytest.mark.slow
def test_a_chip_that_holds_more_than_it_may_fails(
    one: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no plan foresees, as the rows that experts get: here a plan that is not looked at."""
    made = job()
    monkeypatch.setattr("supernode.run.engine.node.check_fits", lambda plan, most: plan)
    monkeypatch.setattr("supernode.api.partition_within", lambda *_, **__: planned)
    found = capture(made.step, made.model, made.optimizer, made.inputs)
    planned = partition(found.program, "")
    step = one.compile(made.step, made.model, made.optimizer, memory=2e6)
    before = state_of(made.model, made.optimizer)
    with pytest.raises(ChipFailed, match=r"it held .* MB of its memory, 2 MB are allowed"):
        step(*made.inputs)
    step.pull()
    pairs = zip(before, state_of(made.model, made.optimizer), strict=False)
    assert all(torch.equal(a, b) for a, b in pairs)
