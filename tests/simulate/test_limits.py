"""What limits a step adds up to the step, and follows what a chip is short of."""

from dataclasses import replace

import pytest

from report.laid import gpt_plan
from supernode.machine import Machine, load_machine
from supernode.simulate import Simulation, limits, simulate
from supernode.simulate.limits import BUBBLE
from supernode.trace import Span, Trace

H100 = load_machine("hgx-h100")


@pytest.mark.parametrize("layout", ["dp=2", "fsdp=2", "tp=2"])
@pytest.mark.parametrize("machine", ["hgx-h100", "cloudmatrix384"])
def test_shares_sum_to_one_and_exposed_communication_is_what_the_trace_says(
    layout: str, machine: str
):
    target = load_machine(machine)
    sim = simulate(gpt_plan(layout), target)
    shares = limits(sim, target)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    exposed = sum(share for name, share in shares.items() if name in sim.sent_bytes)
    assert exposed * sim.step_s == pytest.approx(sim.exposed_comm_s)


def timeline(*spans: tuple[str, str, float, float, float, float]) -> Simulation:
    made = tuple(
        Span(
            name=kind,
            chip=0,
            stream=stream,
            start_s=start_s,
            end_s=end_s,
            kind=kind,
            flops=flops,
            bytes=moved,
        )
        for stream, kind, start_s, end_s, flops, moved in spans
    )
    sim = simulate(gpt_plan("dp=2"), H100)
    return replace(sim, trace=Trace(name="t", spans=made), step_s=10.0)


def test_each_moment_counts_once_computing_first_then_communication_then_the_host():
    sim = timeline(
        ("host", "host", 0.0, 1.0, 0, 0),
        ("compute", "matmul", 1.0, 4.0, 1e15, 1),
        ("comm", "all_reduce", 3.0, 6.0, 0, 0),
        ("compute", "vector", 5.0, 6.0, 1, 1e12),
    )
    got = {name: share * 10 for name, share in limits(sim, H100).items()}
    want = {"host": 1.0, "compute": 3.0, "all_reduce": 1.0, "memory traffic": 1.0, BUBBLE: 4.0}
    assert got == pytest.approx(want)


def test_a_faster_memory_makes_arithmetic_the_limit():
    def share(machine: Machine) -> float:
        return limits(simulate(gpt_plan("dp=2"), machine), machine).get("memory traffic", 0.0)

    memory = H100.chip.memory
    fast = replace(
        H100.chip,
        memory=replace(
            memory,
            bandwidth_bytes_per_s=memory.bandwidth_bytes_per_s.scaled(1e6, "test"),
        ),
    )
    assert share(replace(H100, chip=fast)) < 0.5 * share(H100)
