"""`torch.utils.checkpoint` in a model says what is computed again, as long as no layout does."""

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emulate import run_plan
from supernode.capture import Captured, capture
from supernode.ir import Program, from_json, to_json
from supernode.kernels import executed_ops
from supernode.partition import parse_line, partition
from supernode.plan import memory

BATCH, WIDTH = 128, 16
HIDDEN = 64
Region = Callable[..., Tensor]


def plain(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x)


def again(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(function, x, use_reentrant=False)


def reentrant(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return checkpoint(function, x, use_reentrant=True)


class Layer(nn.Module):
    """Two branches; `parts` are what their hidden units are computed by, `whole` the layer."""

    def __init__(self, parts: Region, whole: Region) -> None:
        super().__init__()
        self.parts, self.whole = parts, whole
        self.norm = nn.LayerNorm(WIDTH)
        self.first, self.second = (
            nn.Sequential(nn.Linear(WIDTH, wide), nn.GELU(), nn.Linear(wide, WIDTH))
            for wide in (HIDDEN, 2 * HIDDEN)
        )

    def branches(self, x: Tensor) -> Tensor:
        x = x + self.parts(self.first, self.norm(x))
        return x + self.parts(self.second, self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(self.branches, x)


class Model(nn.Module):
    def __init__(self, parts: Region, whole: Region, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Layer(parts, whole) for _ in range(layers))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for layer in self.layers:
            x = layer(x)
        return x.square().mean()


class Subject:
    """A model with its step, its capture, and what torch itself makes of the step."""

    def __init__(self, parts: Region, whole: Region, layers: int) -> None:
        model = Model(parts, whole, layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Tensor) -> Tensor:
            loss = model(x)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        x = torch.randn(BATCH, WIDTH, dtype=torch.float64)
        self.captured: Captured = capture(step, model, optimizer, (x,))
        known = self.captured.inputs() | self.captured.host_values() | self.captured.bind(x)
        known = {n: v.clone() if isinstance(v, Tensor) else v for n, v in known.items()}
        self.inputs = [known[port.name] for port in self.program.inputs]
        self.want = [step(x), *(p.detach().clone() for p in model.parameters())]

    @property
    def program(self) -> Program:
        return self.captured.program


@lru_cache
def subject(parts: Region, whole: Region, layers: int = 4) -> Subject:
    return Subject(parts, whole, layers)


def held_bytes(program: Program) -> int:
    """What is in use when backward begins: state, and what forward has left for it."""
    first = next(i for i, op in enumerate(executed_ops(program)) if op.site.phase != "forward")
    return memory(program).timeline[first]


def peak(program: Program, line: str = "") -> int:
    return memory(partition(program, line).local).peak_bytes


@pytest.mark.parametrize("layers", [1, 4])
def test_checkpointed_layers_hold_what_full_recompute_of_them_holds(layers: int) -> None:
    """With four layers they are a block, one alone is written out in main."""
    bare, hinted = subject(plain, plain, layers).program, subject(plain, again, layers).program
    explicit, found = partition(bare, "recompute=full").local, partition(hinted).local
    assert held_bytes(found) == held_bytes(explicit) < held_bytes(bare)
    assert memory(found).timeline == memory(explicit).timeline


def test_of_checkpointed_parts_what_enters_them_is_held() -> None:
    bare, parts, whole = (
        subject(*how).program for how in ((plain, plain), (again, plain), (plain, again))
    )
    held = [held_bytes(partition(each).local) for each in (bare, parts, whole)]
    assert held[0] > held[1] > held[2]
    # Of each branch: the hidden units before and after GELU are dropped, and nothing else.
    dropped = 4 * 2 * (HIDDEN + 2 * HIDDEN) * BATCH * 8
    assert held[0] - held[1] == dropped


def test_a_layout_that_speaks_of_recompute_decides() -> None:
    bare, hinted = subject(plain, plain).program, subject(again, plain).program
    assert peak(hinted, "recompute=none") == peak(bare) > peak(hinted)
    assert peak(hinted, "recompute=full") == peak(bare, "recompute=full") < peak(hinted)
    assert str(parse_line("recompute=model")) == ""
    assert str(parse_line("dp=2,recompute=none")) == "dp=2,recompute=none"


@pytest.mark.parametrize(
    "how", [(again, plain), (plain, again), (reentrant, plain), (again, again)]
)
@pytest.mark.parametrize("line", ["", "dp=2", "fsdp=2,micro=2"])
def test_results_are_torch_s_own(how: tuple[Region, Region], line: str) -> None:
    made = subject(*how)
    plan = partition(made.program, line)
    assert plan.local.num_ops() > partition(made.program, f"{line},recompute=none").local.num_ops()
    found = run_plan(plan, made.inputs)
    for got, want in zip(found, made.want, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        assert line or torch.equal(got, want)


def test_a_saved_program_keeps_its_regions() -> None:
    program = subject(again, plain).program
    assert from_json(to_json(program)) == program
    regions = {op.site.region for block in program.all_blocks() for op in block.ops}
    assert len(regions) == 3  # two in the block of the layers, and none outside
