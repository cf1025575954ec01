"""Checkpoints of steps on real chips: any layout goes on from any other, as one chip would."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

import supernode as sn
from numerics import assert_close
from supernode.errors import CheckpointError, InputError

pytestmark = pytest.mark.slow
LAYOUTS = (
    (2, "dp=2"),
    (2, "pp=2,micro=2,schedule=zb"),
    (3, "pp=1/dp=2,micro=3"),
    (2, "tp=2"),
    (4, "pp=2,fsdp=2"),
    (1, ""),
    (2, "pp=2"),
    (2, "fsdp=2"),
    (4, "fsdp=2,tp=2"),
    (4, "pp=tp=2/fsdp=2"),
)
REDUCED = 1024


class Model(nn.Module):
    """Dropout, a buffer that steps change, one that no state dict has, tied weights, and a
    projection to three parts of which tensor parallel cuts each."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 32)
        self.parts = (width // 2, width // 4, width // 4)
        self.up = nn.Linear(32, width)
        self.down, self.gated = nn.Linear(width // 2, 32), nn.Linear(width // 4, 32)
        self.head = nn.Linear(32, 16, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(32), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen.add_(1)
        h = self.table(x) * self.scale
        a, b, c = self.up(h).split(self.parts, -1)
        h = h + self.down(nn.functional.dropout(torch.relu(a), 0.1)) + self.gated(b * c)
        return nn.functional.cross_entropy(self.head(h).flatten(0, 1), y.flatten())


class Job:
    """The model with AdamW, a schedule, and the data of each step."""

    def __init__(self, width: int = 64) -> None:
        torch.manual_seed(0)
        self.model = Model(width)
        # A large eps, as elsewhere: m / sqrt(v) of near nothing would show rounding as signs.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, eps=1e-3)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [2, 3, 5], 0.5)

    def train_step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.model(x, y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return loss.detach()

    def batch(self, number: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(number)
        return tuple(torch.randint(0, 16, (8, 4), generator=generator) for _ in range(2))

    def on(self, node: sn.Node, layout: str = "") -> sn.Step:
        step = node.compile(self.train_step, self.model, self.optimizer, layout=layout or None)
        return step.prepare(*self.batch(0))


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[int, sn.Node]]:
    with ExitStack() as open_:
        yield {n: open_.enter_context(sn.connect(f"cpu:{n}")) for n in (1, 2, 3, 4)}


def losses(job: Job, step: sn.Step, numbers: Sequence[int]) -> list[Tensor]:
    return [step(*job.batch(number)) for number in numbers]


def same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    assert [name for name in want if not torch.equal(got[name], want[name])] == []


def test_every_layout_goes_on_from_every_other(nodes: dict[int, sn.Node], tmp_path: Path):
    """Two steps in each layout, each in a new job that knows the checkpoint only."""
    job = Job()
    want = losses(job, job.on(nodes[1]), range(2 * len(LAYOUTS)))
    got: list[Tensor] = []
    saved: dict[str, Tensor] = {}
    for number, (chips, layout) in enumerate(LAYOUTS):
        job = Job()
        if number:
            torch.manual_seed(number)  # another seed, but that of the draws is in the checkpoint
        step = job.on(nodes[chips], layout)
        if number:
            checkpoint = step.load(tmp_path)
            assert checkpoint.done == 2 * number
            assert checkpoint.data == {"next": 2 * number}
            same(step.state_dict(), saved)
        got += losses(job, step, range(2 * number, 2 * number + 2))
        saved = step.state_dict()
        assert int(saved["seen"]) == int(saved["random.step"]) == 2 * number + 2
        step.save(tmp_path, 2 * number + 2, data={"next": 2 * number + 2})
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, reduced=REDUCED)


@pytest.mark.parametrize("layout", ["dp=2", "fsdp=2", "tp=2", "pp=2"])
def test_the_same_layout_goes_on_bit_for_bit(
    layout: str, nodes: dict[int, sn.Node], tmp_path: Path
):
    job = Job()
    step = job.on(nodes[2], layout)
    losses(job, step, range(3))
    step.save(tmp_path, 3)
    want, end = losses(job, step, range(3, 6)), step.state_dict()
    rate = job.optimizer.param_groups[0]["lr"]
    job = Job()
    torch.manual_seed(5)
    step = job.on(nodes[2], layout)
    step.load(tmp_path)
    assert all(map(torch.equal, losses(job, step, range(3, 6)), want))
    same(step.state_dict(), end)
    assert job.optimizer.param_groups[0]["lr"] == rate < 1e-2


def test_what_is_saved_is_the_state_of_that_moment(nodes: dict[int, sn.Node], tmp_path: Path):
    """Steps go on while the thread has not even begun to write."""
    job = Job()
    step = job.on(nodes[2], "fsdp=2")
    losses(job, step, range(2))
    hold = Event()
    nodes[2]._writer.start(lambda: None)
    nodes[2]._writer._thread.submit(hold.wait, 60)  # it is busy
    want = step.state_dict()
    step.save(tmp_path, 2)
    losses(job, step, range(2, 5))
    assert not list(tmp_path.glob("step-*"))
    hold.set()
    step.load(tmp_path)
    same(step.state_dict(), want)


def test_other_tools_read_it_into_the_plain_model(nodes: dict[int, sn.Node], tmp_path: Path):
    job = Job()
    step = job.on(nodes[2], "tp=2")
    losses(job, step, range(2))
    step.save(tmp_path, 2)
    step.load(tmp_path)  # after it is written
    step.pull()
    plain = Model()
    load_model(plain, tmp_path / "step-00000002" / "model.safetensors")
    assert plain.state_dict().keys() == job.model.state_dict().keys()
    same(dict(plain.state_dict()), dict(job.model.state_dict()))
    state = load_file(tmp_path / "step-00000002" / "state.safetensors")
    kept = job.optimizer.state[job.model.up.weight]["exp_avg"]
    (name,) = [name for name in state if "exp_avg[" in f"{name}[" and "up.weight" in name]
    assert torch.equal(state[name], kept)
    assert "scale" in state


def test_a_step_that_can_not_be_saved_says_so_at_the_next_call(
    nodes: dict[int, sn.Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: object) -> None:
        raise CheckpointError("no space left")

    job = Job()
    step = job.on(nodes[2], "dp=2")
    want = step.state_dict()
    with monkeypatch.context() as patched:
        patched.setattr("supernode.api.write", full)
        step.save(tmp_path, 1)
        nodes[2]._writer._thread.submit(int).result()  # until it has failed
    with pytest.raises(CheckpointError, match="no space left") as raised:
        step(*job.batch(0))
    assert "test_checkpoints.py" in str(raised.value)
    same(step.state_dict(), want)
    losses(job, step, [0])
    step.save(tmp_path, 1)
    assert step.load(tmp_path).done == 1


def test_closing_waits_and_says_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise CheckpointError("no space left")

    job = Job()
    with sn.connect("cpu:1") as node:
        job.on(node).save(tmp_path, 1)
    assert (tmp_path / "step-00000001").is_dir()
    monkeypatch.setattr("supernode.api.write", full)
    node = sn.connect("cpu:1")
    job.on(node).save(tmp_path, 2)
    with pytest.raises(CheckpointError, match="no space left"):
        node.close()
    node.close()


def test_what_goes_wrong_meanwhile_is_a_note_of_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: object) -> None:
        raise CheckpointError("no space left")

    def fails() -> None:
        with sn.connect("cpu:1") as node:
            Job().on(node).save(tmp_path, 2)
            raise ZeroDivisionError

    monkeypatch.setattr("supernode.api.write", full)
    with pytest.raises(ZeroDivisionError) as raised:
        fails()
    assert "no space left" in raised.value.__notes__[0]


def test_what_is_of_another_model_changes_nothing(nodes: dict[int, sn.Node], tmp_path: Path):
    step = Job(width=128).on(nodes[1])
    step.save(tmp_path, 1)
    step.load(tmp_path)
    job = Job()
    other = job.on(nodes[1])
    want = other.state_dict()
    with pytest.raises(CheckpointError, match=r"up.weight is f32\[128, 32\], the step's is"):
        other.load(tmp_path)
    same(other.state_dict(), want)


def test_what_is_of_another_optimizer_is_refused(nodes: dict[int, sn.Node], tmp_path: Path):
    job = Job()
    job.on(nodes[1]).save(tmp_path, 1)
    job.optimizer = torch.optim.SGD(job.model.parameters(), lr=1e-2)
    job.schedule = torch.optim.lr_scheduler.MultiStepLR(job.optimizer, [2])
    step = job.on(nodes[1])
    with pytest.raises(CheckpointError, match="the step has no optimizer"):
        step.load(tmp_path)


def test_another_schedule_changes_nothing(nodes: dict[int, sn.Node], tmp_path: Path):
    step = Job().on(nodes[1])
    step.save(tmp_path, 1)
    job = Job()

    def unscheduled(x: Tensor, y: Tensor) -> Tensor:
        loss = job.model(x, y)
        loss.backward()
        job.optimizer.step()
        job.optimizer.zero_grad()
        return loss.detach()

    other = nodes[1].compile(unscheduled, job.model, job.optimizer).prepare(*job.batch(0))
    want = other.state_dict()
    with pytest.raises(CheckpointError, match="1 schedulers, the step has 3 and 0"):
        other.load(tmp_path)
    same(other.state_dict(), want)


def test_a_step_that_is_not_captured_has_nothing_to_save(nodes: dict[int, sn.Node], tmp_path: Path):
    job = Job()
    step = nodes[1].compile(job.train_step, job.model, job.optimizer)
    for act in (lambda: step.save(tmp_path, 1), lambda: step.load(tmp_path)):
        with pytest.raises(InputError, match="has not been captured yet"):
            act()
