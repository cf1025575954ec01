"""The two Traces of one Plan, simulated and run: each chip does the same in the same order."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

import pytest

from supernode.capture import Captured, capture
from supernode.machine import load_machine
from supernode.models import recipe
from supernode.ops import Cost
from supernode.partition import partition
from supernode.partition.schedules import SCHEDULES
from supernode.plan import Plan
from supernode.run import Node, connect
from supernode.simulate import Terms, simulate
from supernode.trace import COMM, COMPUTE, Span, Stream, Trace

PARTS = 4
SHAPES = [(2, 1, ""), (2, 2, ""), (4, 1, ""), (2, 1, ",dp=2"), (2, 2, ",dp=2")]
"""Stages, chunks of each, and what else."""
APART = [
    ("1/dp=2", 1, "1f1b"),
    ("1/dp=2", 2, "zb"),
    ("1/tp=2/1", 1, "1f1b"),
    ("tp=2/dp=2", 1, "gpipe"),
    ("fsdp=2/tp=2+sp", 2, "1f1b"),
]
"""Stages of different layouts, chunks of each, and the schedule."""


@lru_cache
def captured() -> Captured:
    job = recipe("llama-tiny").build(batch=8)
    return capture(job.step, job.model, job.optimizer, job.inputs, name="llama-tiny")


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[int, Node]]:
    with connect("cpu:2") as two, connect("cpu:3") as three, connect("cpu:4") as four:
        yield {2: two, 3: three, 4: four}


def simulated(plan: Plan) -> Trace:
    """Each op takes time, so that none is left out."""
    some = Cost(flops=1e6, bytes_read=1e3, bytes_written=1e3, unit="vector")
    on, terms = load_machine("hgx-h100"), Terms(fusion=False)
    return simulate(plan, on, cost=lambda _: some, terms=terms).trace


def measured(node: Node, plan: Plan) -> Trace:
    job = recipe("llama-tiny").build(batch=8)
    loaded = node.load(plan, captured().inputs())
    return loaded.traced_step(captured().bind(*job.inputs), captured().host_values())[1]


def of_chip(trace: Trace, chip: int, stream: Stream) -> list[Span]:
    """What one chip did on a stream, in the order in which it began."""
    spans = [span for span in trace.spans if (span.chip, span.stream) == (chip, stream)]
    return sorted(spans, key=lambda span: span.start_s)


def ops(spans: list[Span]) -> list[tuple[str, str, str, str]]:
    """All but the cutting of a batch: a stretch of rows stays in place, in no simulated time."""
    kept = (span for span in spans if span.name != "local.part")
    return [(span.name, span.module, span.phase, span.task) for span in kept]


def tasks(spans: list[Span]) -> list[str]:
    return [task for task, _ in groupby(span.task for span in spans) if task]


def named(spans: list[Span], *names: str) -> list[Span]:
    return [span for span in spans if span.name in names]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("stages", "chunks", "more"), SHAPES)
def test_simulated_order_is_executed_order(
    nodes: dict[int, Node], stages: int, chunks: int, more: str, schedule: str
) -> None:
    line = f"pp={stages},vp={chunks}{more},micro={PARTS},schedule={schedule}"
    check(nodes, line, chunks, schedule)


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "chunks", "schedule"), APART)
def test_simulated_order_is_executed_order_where_stages_differ(
    nodes: dict[int, Node], stages: str, chunks: int, schedule: str
) -> None:
    check(nodes, f"pp={stages},vp={chunks},micro={PARTS},schedule={schedule}", chunks, schedule)


def check(nodes: dict[int, Node], line: str, chunks: int, schedule: str) -> None:
    plan = partition(captured().program, line)
    found = {"simulated": simulated(plan), "run": measured(nodes[plan.mesh.size], plan)}
    stages = dict(plan.mesh.axes)["pp"]
    firsts = [plan.mesh.rank({"pp": stage}) for stage in range(stages)]
    for stage, first in enumerate(firsts):
        want = [*map(str, SCHEDULES[schedule](stage, stages, chunks, PARTS))]
        if schedule == "zb":  # nobody waits for any of it: all of it gives gradients of weights
            want = [task for task in want if not re.fullmatch("backward . of chunk 0", task)]
        chips = [r for r in range(plan.mesh.size) if plan.mesh.coordinates(r)["pp"] == stage]
        assert tasks(of_chip(found["simulated"], first, COMPUTE)) == want
        for chip in chips:
            assert tasks(of_chip(found["run"], chip, COMPUTE)) == want, chip
        one, other = (
            {stream: of_chip(trace, first, stream) for stream in (COMPUTE, COMM)}
            for trace in found.values()
        )
        assert ops(one[COMPUTE]) == ops(other[COMPUTE])
        for names in (["fabric.send"], ["fabric.all_reduce"]):
            assert ops(named(one[COMM], *names)) == ops(named(other[COMM], *names))
    for trace in found.values():
        check_between_stages(trace, firsts, chunks)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["dp=2,offload=all", "fsdp=2,micro=2,offload=optimizer"])
def test_what_moves_moves_in_the_same_order(nodes: dict[int, Node], line: str) -> None:
    """The transfers of each way, and what is computed."""
    plan = partition(captured().program, line)
    ways = ["place.fetch", "place.store"]
    orders: list[list[list[tuple[str, str, str, str]]]] = []
    for trace in (simulated(plan), measured(nodes[2], plan)):
        computed = of_chip(trace, 0, COMPUTE)
        moved = [span for span in trace.spans if span.chip == 0 and span.name in ways]
        moved.sort(key=lambda span: span.start_s)
        orders.append([ops(named(moved, way)) for way in ways])
        orders[-1].append(ops([span for span in computed if not span.name.startswith("place.")]))
    assert orders[0] == orders[1]
    assert len(orders[0][0]) > 20


def check_between_stages(trace: Trace, firsts: list[int], chunks: int) -> None:
    """Forwards go up the chunks, backwards down: what a task is sent, the one before has made."""
    ends: dict[str, float] = {}
    starts: dict[str, float] = {}
    for chip in firsts:
        for span in of_chip(trace, chip, COMPUTE):
            ends[span.task] = span.end_s
        for span in named(of_chip(trace, chip, COMM), "fabric.send"):
            starts.setdefault(span.task, span.start_s)
    for part in range(PARTS):
        for low in range(len(firsts) * chunks - 1):
            lower, upper = (f"{part} of chunk {chunk}" for chunk in (low, low + 1))
            assert starts[f"forward {lower}"] < ends[f"forward {upper}"]
            done = ends.get(f"backward {lower}", ends.get(f"weights {lower}", 0.0))
            assert starts[f"backward {upper}"] < done
