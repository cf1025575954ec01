"""Weights gathered early in backward, or once the layer before is done."""

import torch
from torch import nn

from simulate.steps import trained
from supernode.machine import load_machine
from supernode.partition import partition
from supernode.simulate import Simulation, Terms, simulate

LAYERS, WIDTH, ROWS = 4, 4096, 8192


def simulated(terms: Terms) -> Simulation:
    with torch.device("meta"):
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)]
        model = nn.Sequential(*layers).to(torch.bfloat16)
        x = torch.empty(ROWS, WIDTH, dtype=torch.bfloat16)
    plan = partition(trained(model, x), "fsdp=4")
    return simulate(plan, load_machine("hgx-h100"), terms=terms.without("interference"))


def test_backward_waits_for_each_gather_but_for_no_sum():
    early, late = simulated(Terms()), simulated(Terms().without("prefetch"))
    spans = [span for span in late.trace.spans if span.phase == "backward"]
    gathers = [span for span in spans if span.name == "fabric.all_gather"]
    sums = [span for span in spans if span.name == "fabric.reduce_scatter"]
    assert len(sums) == LAYERS
    assert len(gathers) >= LAYERS - 1
    for gather in gathers:
        begun = [span for span in spans if span.stream == "compute" and span.end_s > gather.start_s]
        assert min(span.start_s for span in begun) >= gather.end_s * (1 - 1e-9)
    # The last sum has nothing behind it either way; the others go beside the next layer.
    gather_s = sum(span.end_s - span.start_s for span in gathers)
    longer_s = late.step_s - early.step_s
    assert 0.5 * gather_s < longer_s <= gather_s * (1 + 1e-9)
    last_s = sums[-1].end_s - sums[-1].start_s
    assert late.exposed_comm_s < early.exposed_comm_s + gather_s + last_s


def test_forward_gathers_early_either_way():
    def first_gathers(terms: Terms) -> list[float]:
        spans = simulated(terms).trace.spans
        gathers = [span for span in spans if span.name == "fabric.all_gather"]
        return [span.start_s for span in gathers if span.phase == "forward"][:LAYERS]

    assert first_gathers(Terms()) == first_gathers(Terms().without("prefetch"))
