"""What moves between a chip and another place: priced by the link, beside what is computed."""

from functools import lru_cache
from itertools import pairwise

import pytest
import torch

import tiny
from supernode.capture import capture
from supernode.errors import MachineFileError
from supernode.ir import Program
from supernode.machine import catalogue, load_machine
from supernode.models import recipe
from supernode.partition import partition
from supernode.simulate import Simulation, Terms, limits, simulate
from supernode.trace import COPY, STREAMS, from_chrome


@lru_cache
def program() -> Program:
    job = recipe("llama-tiny").build(batch=8)
    return capture(job.step, job.model, job.optimizer, job.inputs).program


def played(line: str, host_bandwidth: float, terms: Terms | None = None) -> Simulation:
    machine = tiny.machine(host_bandwidth=host_bandwidth, launch_s=1e-5)
    return simulate(partition(program(), line), machine, terms=terms or Terms())


@pytest.mark.parametrize("line", ["offload=all", "recompute=full,offload=all", "offload=optimizer"])
@pytest.mark.parametrize("host_bandwidth", [1e8, 1e9, 1e11])
def test_no_step_is_shorter_than_what_it_moves(line: str, host_bandwidth: float) -> None:
    sim = played(line, host_bandwidth)
    for way in ("fetch", "store"):
        assert sim.step_s >= sim.sent_bytes[way] / host_bandwidth
    assert sim.step_s >= sim.roofline_s


def test_transfers_that_computing_covers_take_no_time() -> None:
    """Activations go and come beside the layers: the step is as long as the one in memory."""
    plain, moved = played("", 1e9), played("offload=activations", 1e11)
    assert moved.sent_bytes["fetch"] > 1e6
    assert moved.step_s == pytest.approx(plain.step_s, rel=1e-9)
    assert moved.exposed_comm_s < 0.01 * moved.step_s
    slow = played("offload=activations", 1e8)
    assert slow.step_s > 1.5 * plain.step_s


@lru_cache
def large(*, clipped: bool) -> Program:
    """A step of a Llama of 8 layers and 0.9 B weights, which computes longer than state moves."""
    shape = {"layers": 8, "hidden": 2048, "heads": 16, "kv_heads": 8, "ffn": 8192}
    job = recipe("llama3-8b").with_shape(shape).build(batch=8, sequence=4096, device="meta")
    model, optimizer = job.model, job.optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)

    def unclipped(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return capture(job.step if clipped else unclipped, model, optimizer, job.inputs).program


@pytest.mark.parametrize("machine", ["hgx-h100", "gb200-nvl72"])
def test_state_comes_beside_backward_and_goes_beside_it_without_clipping(machine: str) -> None:
    """All fetches are covered. Stores are but those of the weights whose gradients come last, or,
    where all updates wait for the norm of all gradients, none."""
    on, line = load_machine(machine), "recompute=full"
    for clipped in (True, False):
        program = large(clipped=clipped)
        plain = simulate(partition(program, line), on)
        moved = simulate(partition(program, f"{line},offload=optimizer"), on)
        per_s = moved.sent_bytes["store"] / sum(
            span.end_s - span.start_s for span in moved.trace.spans if span.kind == "store"
        )
        assert moved.memory.peak_bytes < plain.memory.peak_bytes
        left_bytes = sum(
            value.type.size_bytes
            for port, value in zip(program.inputs, program.main.inputs, strict=True)
            if port.role == "state" and (clipped or (port.of or "").endswith("embedding.weight"))
        )
        exposed_s = left_bytes / per_s
        assert moved.step_s < 1.01 * plain.step_s + exposed_s
        assert moved.step_s > plain.step_s


def test_without_overlap_each_transfer_is_waited_for() -> None:
    beside, after = (
        played("offload=activations", 1e10, terms)
        for terms in (Terms(), Terms().without("overlap"))
    )
    moved = beside.critical_s.get("fetch", 0.0)
    assert after.critical_s["fetch"] > moved
    plain = played("", 1e10).step_s
    assert after.step_s == pytest.approx(
        plain + after.critical_s["fetch"] + after.critical_s["store"], rel=1e-9
    )


def test_each_way_does_one_copy_at_a_time() -> None:
    spans = [s for s in played("offload=all", 1e9).trace.spans if s.stream == COPY]
    for kind in ("fetch", "store"):
        one_way = sorted((s for s in spans if s.kind == kind), key=lambda span: span.start_s)
        assert len(one_way) > 10
        assert all(a.end_s <= b.start_s for a, b in pairwise(one_way))


def test_what_is_waited_for_is_said() -> None:
    machine = tiny.machine(host_bandwidth=1e8)
    sim = simulate(partition(program(), "offload=all"), machine)
    shares = limits(sim, machine)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["fetch"] + shares["store"] > 0.5
    assert sum(sim.critical_s.values()) == pytest.approx(sim.step_s)
    assert COPY in sim.trace.streams
    assert from_chrome(sim.trace.to_chrome()) == sim.trace
    assert COPY in STREAMS


def test_peers_are_reached_by_the_links_between_chips() -> None:
    machine = tiny.machine(host_bandwidth=1e7)
    host, peers = (
        simulate(partition(program(), f"dp=2,offload=optimizer{place}"), machine)
        for place in ("", "@peers")
    )
    assert peers.sent_bytes["fetch"] == host.sent_bytes["fetch"]
    assert peers.step_s < host.step_s
    assert peers.memory.away == {"peers": host.memory.away["host"]}


def test_every_machine_of_the_catalogue_says_how_the_host_is_reached() -> None:
    plan = partition(program(), "offload=optimizer")
    for name in catalogue():
        assert simulate(plan, load_machine(name)).sent_bytes["fetch"] > 0, name


def test_a_machine_that_does_not_is_refused() -> None:
    machine = tiny.machine(host_bandwidth=0.0)
    with pytest.raises(MachineFileError, match="does not say how a chip reaches the memory of its"):
        simulate(partition(program(), "offload=optimizer"), machine)
