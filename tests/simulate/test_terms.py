from dataclasses import replace
from math import log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.capture import capture
from supernode.errors import UnknownName
from supernode.machine import Machine
from supernode.models import recipe
from supernode.partition import partition
from supernode.plan import Mesh, Plan
from supernode.simulate import Rehearsal, Terms, simulate
from supernode.simulate.timing import timing
from tiny import Builder, layered, machine, number, plan

ONE, FOUR = Mesh(()), Mesh((("dp", 4),))


def slowed(**terms: float) -> Machine:
    """A machine in whose file the named terms stand."""
    target = machine()
    host = terms.pop("host_step_s", None)
    numbers = {name: number(value, "guessed") for name, value in terms.items()}
    target = replace(target, chip=replace(target.chip, **numbers))
    return target if host is None else replace(target, host_step_s=number(host, "measured"))


def waiting() -> Plan:
    """A product beside a sum, and one after both."""
    builder = Builder(256)
    w, x = builder.input("w"), builder.input("x", "arg")
    reduced = builder.all_reduce(x)
    a = builder.op("aten.mm", x, w)
    return plan(builder.program(builder.op("aten.mm", reduced, a)), FOUR)


def test_the_host_adds_its_time_once() -> None:
    without, with_host = (
        simulate(plan(layered(3), ONE), m) for m in (machine(), slowed(host_step_s=1e-3))
    )
    assert with_host.step_s == pytest.approx(without.step_s + 1e-3)
    assert with_host.critical_s["host"] == 1e-3
    assert with_host.trace.spans[0].stream == "host"
    off = simulate(plan(layered(3), ONE), slowed(host_step_s=1e-3), terms=Terms().without("host"))
    assert off.step_s == without.step_s
    assert "host" not in off.critical_s


def test_jitter_grows_with_the_number_of_chips() -> None:
    target = slowed(jitter=0.01)
    alone = simulate(plan(layered(3), ONE), target)
    assert "jitter" not in alone.critical_s
    four = simulate(plan(layered(3), FOUR), target)
    assert four.step_s == pytest.approx(alone.step_s * (1 + 0.01 * sqrt(2 * log(4))))
    assert four.critical_s["jitter"] == pytest.approx(four.step_s - alone.step_s)
    assert (
        simulate(plan(layered(3), FOUR), target, terms=Terms(jitter=False)).step_s == alone.step_s
    )
    assert Terms().stretch(target.chip, 65536) > Terms().stretch(target.chip, 8) > 1


def test_communication_takes_cores_from_what_runs_beside_it() -> None:
    target = slowed(comm_share=0.5)
    alone, beside = (simulate(waiting(), m) for m in (machine(), target))
    reduce, first, last = beside.trace.spans
    assert first.start_s == reduce.start_s == 0
    # While the sum runs, the product gets half of the cores.
    slow_s = min(reduce.duration_s, 2 * alone.trace.spans[1].duration_s)
    assert first.duration_s == pytest.approx(alone.trace.spans[1].duration_s + slow_s / 2)
    assert last.duration_s == pytest.approx(alone.trace.spans[2].duration_s)
    assert simulate(waiting(), target, terms=Terms(interference=False)).step_s == alone.step_s
    assert sum(beside.critical_s.values()) == pytest.approx(beside.step_s)


def test_without_overlap_one_waits_for_the_other() -> None:
    apart = simulate(waiting(), machine(), terms=Terms(overlap=False))
    assert apart.step_s == pytest.approx(sum(s.duration_s for s in apart.trace.spans))
    assert apart.step_s > simulate(waiting(), machine()).step_s
    assert apart.sent_bytes == simulate(waiting(), machine()).sent_bytes


def test_without_a_graph_no_op_takes_less_than_its_launch_by_the_host() -> None:
    target = slowed(host_launch_s=1e-3)
    assert simulate(plan(layered(3), ONE), target, terms=Terms(graph=False)).step_s >= 6e-3
    assert simulate(plan(layered(3), ONE), target).step_s < 6e-3


def test_fusion_is_one_pass_over_memory() -> None:
    builder = Builder(512)
    x = builder.input("x", "arg")
    a = builder.op("aten.relu", x)
    b = builder.op("aten.neg", a)
    chain = plan(builder.program(builder.op("aten.add.Tensor", a, b)), ONE)
    target = machine()
    fusing = replace(target, chip=replace(target.chip, fuses=True))
    fused, apart = simulate(chain, fusing), simulate(chain, target)
    assert [len(sim.trace.spans) for sim in (fused, apart)] == [1, 3]
    size = 512 * 512 * 4
    assert [span.bytes for span in fused.trace.spans] == [2 * size]
    assert sum(span.bytes for span in apart.trace.spans) == 7 * size
    assert fused.trace.spans[0].flops == sum(span.flops for span in apart.trace.spans)
    assert simulate(chain, fusing, terms=Terms(fusion=False)).step_s == apart.step_s


def test_what_is_read_outside_is_still_written() -> None:
    builder = Builder(512)
    x, w = builder.input("x", "arg"), builder.input("w")
    a = builder.op("aten.relu", x)
    b = builder.op("aten.neg", a)
    product = builder.op("aten.mm", b, w)
    chain = plan(builder.program(builder.op("aten.mm", a, product)), ONE)
    target = machine()
    spans = simulate(chain, replace(target, chip=replace(target.chip, fuses=True))).trace.spans
    assert [span.bytes / (512 * 512 * 4) for span in spans] == [3, 3, 3]


def test_products_of_the_same_activations_are_one() -> None:
    builder = Builder(512)
    x, v, w = builder.input("x", "arg"), builder.input("v"), builder.input("w")
    pair = builder.op("aten.mm", x, v), builder.op("aten.mm", x, w)
    layers = plan(builder.program(builder.op("aten.mm", *pair)), ONE)
    target = machine()
    fused = simulate(layers, replace(target, chip=replace(target.chip, fuses=True)))
    size = 512 * 512 * 4
    assert [span.bytes / size for span in fused.trace.spans] == [5, 3]
    assert [span.flops / (2 * 512**3) for span in fused.trace.spans] == [2, 1]


def test_attention_by_older_kernels_takes_longer() -> None:
    chip = replace(machine().chip, older_attention={"flash-1": number(2.0, "inferred")})
    alone = timing(((1e-3, "measured"),), 1e-4)
    older = Terms(attention="flash-1").by_generation(alone, chip)
    assert (older.time_s, older.bound_s) == (pytest.approx(2e-3), 1e-4)
    assert older.by_kind == {"measured": 1e-3, "inferred": pytest.approx(1e-3)}
    assert Terms().by_generation(alone, chip) == alone
    assert Terms(attention="flash-9").by_generation(alone, chip) == alone


def test_without_a_bubble_no_stage_waits_for_another() -> None:
    job = recipe("gpt-tiny").build(batch=4, device="meta")
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    rehearsal = Rehearsal(partition(program, "pp=2,micro=4"))
    full = rehearsal.on(machine())
    without = rehearsal.on(machine(), terms=Terms().without("bubble"))
    assert full.critical_s["bubble"] > 0
    assert without.step_s < full.step_s
    busy_s = [
        sum(s.duration_s for s in without.trace.spans if s.chip == chip and s.stream == "compute")
        for chip in (0, 1)
    ]
    # What is left of a stage is its own: it computes, and sends what nobody waits for.
    assert without.step_s == pytest.approx(max(busy_s), rel=0.05)
    assert without.critical_path_s <= without.step_s * (1 + 1e-9)
    assert without.sent_bytes == full.sent_bytes


def test_without_imbalance_experts_get_even_rows() -> None:
    assert Terms(imbalance=1.5).without("imbalance") == Terms()


def test_a_term_that_is_none_is_refused() -> None:
    with pytest.raises(UnknownName, match="no term 'hots'"):
        Terms().without("hots")


@given(st.floats(0.5, 4), st.booleans())
def test_a_rehearsal_answers_as_simulate_does(factor: float, overlap: bool) -> None:
    made = plan(layered(3, reduce_over="dp"), FOUR)
    rehearsal, terms = Rehearsal(made), Terms(overlap=overlap)
    rehearsal.on(machine(), terms=terms)
    other = machine(memory_bandwidth=1e11 * factor, launch_s=1e-6 * factor)
    assert rehearsal.on(other, terms=terms) == simulate(made, other, terms=terms)
