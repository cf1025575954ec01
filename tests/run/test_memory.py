"""The memory of a plan is what its chips hold: to the byte for each op, to 3 % for whole models."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import assume, given, settings

from kernels.random_programs import SIZE, programs
from ops.calls import call, execute
from run.plans import training_plan
from supernode.ir import Program
from supernode.kernels import generate
from supernode.plan import destinations, run_memory
from supernode.plan.workspace import workspace_bytes
from supernode.run import Node, connect
from supernode.run.chips.allocations import Allocations
from supernode.trace import MEMORY, PLANNED_MEMORY

TENSOR_BYTES = 4 * SIZE * SIZE
"""Every tensor of a random program; a number among the operands takes 4 or 8 bytes meanwhile."""


@pytest.fixture(scope="module")
def two() -> Iterator[Node]:
    with connect("cpu:2") as node:
        yield node


@settings(max_examples=40)
@given(whole=programs())
def test_each_op_holds_what_the_plan_says(whole: Program) -> None:
    names = {op.name for block in whole.all_blocks() for op in block.ops}
    # Of a transposed tensor a reshape is a copy, and softmax makes one for itself.
    assume(not names & {"aten.t", "aten.transpose.int"} or not names & COPIES)
    step = generate(whole)
    inputs = [torch.randn(value.tensor.shape) for value in whole.main.inputs]
    out = [
        torch.empty(value.tensor.shape) if i in destinations(whole) else None
        for i, value in enumerate(whole.main.outputs)
    ]
    watch = Allocations()
    with watch:
        step.traced(inputs, out, after_op=watch.mark)
    results = sum(source is None for source in whole.updates)
    resident = len(inputs) + len(destinations(whole)) + results
    measured = [peak + resident * TENSOR_BYTES for peak in watch.peaks]
    planned = run_memory(whole).timeline
    assert len(measured) == len(planned)
    assert 0 <= max(measured) - max(planned) < TENSOR_BYTES
    for found, said, before in zip(measured, planned, (0, *planned), strict=False):
        # What a call gives and nobody wants goes when it has returned, after its last mark.
        assert said <= found < max(said, before) + TENSOR_BYTES, (measured, planned)


COPIES = {"aten.view", "aten._unsafe_view", "aten._softmax"}


def test_what_lives_within_a_span_only_is_seen() -> None:
    with Allocations() as watch:
        watch.mark()
        held = torch.ones(1000)
        watch.mark()
        torch.neg(held + held)
        watch.mark()
        watch.mark()
    assert watch.peaks == [0, 4000, 12000, 4000]


# batch, channels, pixels a side, kernel, channels out, stride, groups
CONVOLUTIONS = (
    (1, 8, 16, 3, 16, 1, 1),  # unfolded
    (4, 3, 32, 3, 16, 1, 1),
    (4, 64, 28, 3, 64, 1, 1),
    (4, 24, 28, 3, 24, 1, 1),  # padded to 32
    (4, 32, 28, 3, 64, 2, 1),
    (4, 64, 28, 1, 128, 1, 1),
    (4, 32, 28, 3, 32, 1, 4),
    (4, 32, 28, 7, 32, 1, 32),
    (4, 24, 28, 5, 24, 1, 24),
)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As many as the workspace was measured with: one thread may have another kernel."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="blocks have other sizes"
)
@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
def test_convolutions_take_the_workspace_that_is_planned(sizes: tuple[int, ...]) -> None:
    batch, channels, side, kernel, out, stride, groups = sizes
    x, w = (
        torch.randn(batch, channels, side, side),
        torch.randn(out, channels // groups, kernel, kernel),
    )
    rest = ((stride,) * 2, (kernel // 2,) * 2, (1, 1), False, (0, 0), groups)
    forward = call("aten.convolution", x, w, None, *rest)
    grad = torch.randn_like(forward.outputs[0])
    if groups == channels and kernel > 3:  # as ConvNeXt's permutes have them
        grad, x = (each.to(memory_format=torch.channels_last) for each in (grad, x))
    for asked in ((True, True, False), (False, True, False)):
        backward = call("aten.convolution_backward", grad, x, w, None, *rest, asked)
        for sample in (forward, backward):
            with Allocations() as watch:
                execute(sample.op, sample.inputs)
                watch.mark()
            results = sum(result.nbytes for result in sample.outputs)
            all_bytes = sum(given.nbytes for given in sample.inputs) + watch.peaks[0]
            said = results + workspace_bytes(sample.op)
            assert abs(watch.peaks[0] - said) <= 0.06 * all_bytes, (sample, asked)


def test_a_measured_step_is_a_step(two: Node) -> None:
    generator = torch.Generator().manual_seed(3)
    w, x = torch.randn(8, 8, generator=generator), torch.randn(8, 8, generator=generator)
    loaded = two.load(training_plan(2), {"w": w, "count": 0.0, "r": 0.01})
    (loss, _), trace = loaded.traced_step({"x": x}, memory=True)
    torch.testing.assert_close(loss, (x @ w).sum())
    assert loaded.pull()["count"] == 1.0
    for chip in (0, 1):
        planned = loaded.plan.memory().peak_bytes
        assert trace.peak(PLANNED_MEMORY, chip) == planned
        assert trace.peak(MEMORY, chip) == pytest.approx(planned, rel=0.03)
    _, trace = loaded.traced_step({"x": x})
    assert not trace.counters
