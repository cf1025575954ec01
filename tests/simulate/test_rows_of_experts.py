"""What a stack's software makes of routed rows: who sorts them, what hides their sending, and how
many kernels the host launches for experts."""

import functools
from dataclasses import replace

import pytest

from supernode.capture import capture
from supernode.machine import load_machine
from supernode.models import Shape, sized
from supernode.ops import Cost, Product
from supernode.partition import partition
from supernode.plan import Plan
from supernode.simulate import Simulation, Terms, by_host, cost_in, op_time, simulate
from supernode.simulate.launched import ALL, NOTHING

H100 = load_machine("hgx-h100")
TOPK, RANKS = 4, 8
SHAPE = Shape(
    family="llama",
    layers=2,
    hidden=512,
    ffn=256,
    heads=4,
    vocab=1024,
    kv_heads=4,
    experts=32,
    topk=TOPK,
)


@functools.cache
def plan(parts: int = 4) -> Plan:
    recipe = sized(SHAPE.family, SHAPE, sequence=1024, summary="")
    job = recipe.build(batch=parts * RANKS, device="meta", sequence=1024, phase="train")
    program = capture(job.step, job.model, job.optimizer, job.inputs, name="experts").program
    return partition(program, f"ep={RANKS},micro={parts}", RANKS)


def step(**terms: object) -> Simulation:
    return simulate(plan(), H100, terms=Terms(**terms))  # type: ignore[arg-type]


def moved(sim: Simulation) -> float:
    """The bytes of all kernels but products."""
    return sum(s.bytes for s in sim.trace.spans if s.stream == "compute" and not s.flops)


def test_kernels_that_sort_rows_read_and_write_them_once() -> None:
    captured, permuted, sent = step(), step(permuted=TOPK), step(permuted=TOPK, copies=TOPK)
    assert captured.model_flops == permuted.model_flops == sent.model_flops
    assert captured.sent_bytes == permuted.sent_bytes == sent.sent_bytes
    assert captured.compute_s > permuted.compute_s > sent.compute_s
    # What is left between the two is one pass before and one behind each sending, in both phases.
    rows = 1024 * TOPK * SHAPE.hidden * 2
    passes = 4 * SHAPE.layers * 4 * rows * (1 + 1 / TOPK)
    assert moved(permuted) - moved(sent) == pytest.approx(passes, rel=0.02)


def test_rows_of_tokens_with_one_expert_stay_as_captured() -> None:
    assert step(permuted=1).compute_s == step().compute_s


def test_paired_microbatches_hide_the_sending_of_rows() -> None:
    apart, paired = step(permuted=TOPK), step(permuted=TOPK, paired=True)
    assert paired.step_s < apart.step_s
    assert paired.step_s >= max(paired.compute_s, paired.comm_s)
    assert paired.step_s >= paired.critical_path_s
    assert paired.comm_s == pytest.approx(apart.comm_s)
    alone = step(permuted=TOPK, paired=True, overlap=False)
    assert alone.step_s == pytest.approx(step(permuted=TOPK, overlap=False).step_s)


def test_nothing_hides_what_takes_longer_than_computing() -> None:
    slow = H100.levels[0]
    rate = replace(slow.bandwidth_bytes_per_s, value=slow.bandwidth_bytes_per_s.value / 100)
    machine = replace(H100, levels=(replace(slow, bandwidth_bytes_per_s=rate), *H100.levels[1:]))
    paired = simulate(plan(), machine, terms=Terms(copies=TOPK, permuted=TOPK, paired=True))
    assert paired.comm_s > paired.compute_s
    assert paired.step_s >= paired.comm_s


def products(
    precision: str,
    graphs: tuple[str, ...],
    casts: int,
    beside: tuple[float, float] = NOTHING,
) -> list[float]:
    cost = by_host(cost_in(precision), graphs=graphs, casts=casts, beside=beside)
    terms = Terms(graph=False, jitter=False, overlap=False)
    spans = simulate(plan(), H100, cost=cost, terms=terms).trace.spans
    return [span.end_s - span.start_s for span in spans if span.name == "aten._grouped_mm"]


def test_the_host_launches_the_product_of_each_expert() -> None:
    launch_s = H100.chip.host_launch_s
    assert launch_s is not None
    local = SHAPE.experts // RANKS
    in_graph, each, cast = (
        products("mxfp8", graphs, casts) for graphs, casts in ((ALL, 0), ((), 0), ((), 1))
    )
    assert min(in_graph) < local * launch_s.value * 2 / 3
    assert min(each) == pytest.approx(local * launch_s.value * 2 / 3)  # four products for six
    assert max(cast) >= 2 * local * launch_s.value  # forward: a cast and a product for each
    assert sum(in_graph) < sum(each) < sum(cast)


def test_experts_by_themselves_are_no_faster_than_linear_layers() -> None:
    shape = Product(groups=16, m=8192, n=4096, k=4096, ragged=True)
    rows, weights = 16 * 8192 * 4096 * 2.0, 16 * 4096**2 * 2.0
    flops = 2.0 * 16 * 8192 * 4096**2
    cost = Cost(flops, rows + weights, rows, "matmul", "bfloat16", shape)
    at_once = op_time(cost, H100.chip).time_s
    apart = op_time(replace(cost, shape=replace(shape, apart=True)), H100.chip).time_s
    layer = Cost(flops, rows, rows, "matmul", "bfloat16", Product(m=16 * 8192, n=4096, k=4096))
    assert apart >= op_time(layer, H100.chip).time_s >= at_once


def test_casts_of_experts_are_traffic() -> None:
    none, one, scaled = (sum(products("fp8", ALL, casts)) for casts in (0, 1, 3))
    assert none < one < scaled
    assert sum(products("bf16", ALL, 3)) == sum(products("bf16", ALL, 0))


@pytest.mark.parametrize("beside", [(64.0, 0.0), (0.0, 64.0)])
def test_what_a_stack_copies_beside_is_traffic_of_rows_once_a_phase(
    beside: tuple[float, float],
) -> None:
    plain, copied = (products("bf16", ALL, 0, each) for each in (NOTHING, beside))
    longer = [late - soon for soon, late in zip(plain, copied, strict=True) if late > soon + 1e-9]
    assert len(longer) == SHAPE.layers * 4  # once for each of four microbatches
    numbers = 1024 * TOPK * SHAPE.hidden
    rate = H100.chip.memory.bandwidth_bytes_per_s.value
    assert min(longer) >= 64 * numbers / rate
