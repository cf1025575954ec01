from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode import ops
from supernode.errors import LayoutError, UnknownOp
from supernode.ir import Block, Op, Program
from supernode.machine import Machine
from supernode.ops import Cost
from supernode.plan import Mesh, Plan
from supernode.plan.memory import memory
from supernode.simulate import Simulation, op_time, simulate
from supernode.trace import COMM, COMPUTE, MEMORY, verify_trace
from tiny import Builder, layered, level, machine, number, plan

ONE = Mesh(())
FOUR = Mesh((("dp", 4),))
NAMES = ("aten.mm", "aten.relu", "aten.t", "fabric.all_reduce")


@st.composite
def locals_(draw: st.DrawFn) -> Program:
    """Ops that read any of the values before them."""
    builder = Builder(draw(st.sampled_from([8, 256])))
    values = [builder.input("w"), builder.input("x", "arg")]
    for _ in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from(NAMES))
        first, second = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        if name == "fabric.all_reduce":
            values.append(builder.all_reduce(first))
        else:
            args = (first, second) if name == "aten.mm" else (first,)
            values.append(builder.op(name, *args))
    return builder.program(values[-1])


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    node = level("node", 2, draw(st.floats(1e7, 1e12)), draw(st.floats(1e-7, 1e-3)))
    outer = level("supernode", 8, draw(st.floats(1e7, 1e12)), draw(st.floats(1e-7, 1e-3)))
    return machine((node, outer), peak=draw(st.floats(1e9, 1e15)))


def assert_obeys_bounds(sim: Simulation) -> None:
    slack = 1 + 1e-9
    assert sim.step_s * slack >= sim.roofline_s
    assert sim.step_s * slack >= sim.critical_path_s
    assert sim.step_s * slack >= max(sim.compute_s, sim.comm_s)
    assert sim.step_s <= (sim.compute_s + sim.comm_s) * slack


@given(locals_(), machines())
def test_no_step_beats_its_bounds(local: Program, machine: Machine) -> None:
    assert_obeys_bounds(simulate(plan(local, FOUR), machine))


def test_the_bounds_property_can_fail() -> None:
    sim = simulate(plan(layered(2), ONE), machine())
    for wrong in ("roofline_s", "critical_path_s", "compute_s"):
        with pytest.raises(AssertionError):
            assert_obeys_bounds(replace(sim, **{wrong: 2 * sim.step_s}))


@given(locals_(), machines())
def test_the_parts_of_a_step_add_up(local: Program, machine: Machine) -> None:
    sim = simulate(plan(local, FOUR), machine)
    trace = verify_trace(sim.trace)
    assert sum(sim.critical_s.values()) == pytest.approx(sim.step_s)
    assert sum(sim.by_kind.values()) == pytest.approx(sim.step_s)
    assert trace.end_s == sim.step_s
    assert trace.busy_s(0, COMPUTE) == pytest.approx(sim.compute_s)
    assert trace.busy_s(0, COMM) == pytest.approx(sim.comm_s)
    # A chip that does not compute waits for a collective: nothing else can keep it.
    assert sim.exposed_comm_s == pytest.approx(sim.step_s - sim.compute_s, rel=1e-9, abs=1e-12)


@given(locals_(), machines(), st.floats(1, 100), st.floats(0.01, 1))
def test_a_better_machine_is_never_slower(
    local: Program, old: Machine, wider: float, quicker: float
) -> None:
    better_levels = tuple(
        replace(
            inner,
            bandwidth_bytes_per_s=number(inner.bandwidth_bytes_per_s.value * wider),
            latency_s=number(inner.latency_s.value * quicker),
        )
        for inner in old.levels
    )
    before = simulate(plan(local, FOUR), old).step_s
    after = simulate(plan(local, FOUR), replace(old, levels=better_levels)).step_s
    assert after <= before * (1 + 1e-9)


@given(locals_(), machines())
def test_the_same_again_is_equal_byte_for_byte(local: Program, machine: Machine) -> None:
    first, second = (simulate(plan(local, FOUR), machine) for _ in range(2))
    assert first.trace.to_chrome() == second.trace.to_chrome()
    assert first == second


@given(locals_(), machines())
def test_one_chip_takes_the_sum_of_its_ops(local: Program, machine: Machine) -> None:
    sim = simulate(plan(local, Mesh((("dp", 1),))), machine)
    computing = [op for op in local.main.ops if not op.name.startswith("fabric.")]
    assert sim.step_s == pytest.approx(
        sum(op_time(ops.cost(op), machine.chip).time_s for op in computing)
    )
    assert sim.comm_s == sim.exposed_comm_s == 0


@given(locals_(), machines())
def test_each_all_reduce_sends_exactly_its_share(local: Program, machine: Machine) -> None:
    sim = simulate(plan(local, FOUR), machine)
    size_bytes = local.main.inputs[0].type.size_bytes
    count = sum(op.name == "fabric.all_reduce" for op in local.main.ops)
    assert sim.sent_bytes.get("all_reduce", 0) == pytest.approx(count * 2 * 3 / 4 * size_bytes)


@given(st.integers(1, 20), st.sampled_from(["", "dp"]))
def test_twice_the_layers_take_twice_the_time(layers: int, axis: str) -> None:
    once = simulate(plan(layered(layers, reduce_over=axis), FOUR), machine())
    twice = simulate(plan(layered(2 * layers, reduce_over=axis), FOUR), machine())
    assert twice.step_s == pytest.approx(2 * once.step_s)
    assert twice.model_flops == 2 * once.model_flops


def test_a_collective_overlaps_until_its_first_use() -> None:
    builder = Builder(128)
    w, x = builder.input("w"), builder.input("x", "arg")
    a = builder.op("aten.mm", x, w)
    reduced = builder.all_reduce(a)
    b = builder.op("aten.mm", a, w)
    last = builder.op("aten.mm", builder.op("aten.t", reduced), b)
    sim = simulate(plan(builder.program(last), FOUR), machine())
    mm_a, reduce, mm_b, mm_last = sim.trace.spans
    assert [span.stream for span in sim.trace.spans] == [COMPUTE, COMM, COMPUTE, COMPUTE]
    assert reduce.start_s == mm_b.start_s == mm_a.end_s
    assert mm_last.start_s == max(reduce.end_s, mm_b.end_s)
    assert sim.exposed_comm_s == pytest.approx(reduce.end_s - mm_b.end_s)
    assert sim.exposed_comm_s > 0


def test_a_collective_does_not_start_before_its_place_in_the_program() -> None:
    builder = Builder()
    w = builder.input("w")
    a = builder.op("aten.mm", w, w)
    b = builder.op("aten.mm", a, w)
    last = builder.op("aten.mm", b, builder.all_reduce(a))
    _, second, reduced, _ = simulate(plan(builder.program(last), FOUR), machine()).trace.spans
    assert reduced.stream == COMM
    assert reduced.start_s == second.end_s


def gathering(layers: int) -> Plan:
    """Each layer first sums its own weight over the chips: that waits for nothing computed."""
    builder = Builder(64)
    inner = Builder(64)
    w, x = inner.fresh(), inner.fresh()
    whole = inner.all_reduce(w)
    y = inner.op("aten.relu", inner.op("aten.mm", x, whole))
    builder.blocks.append(Block(name="layer", inputs=(w, x), ops=tuple(inner.ops), outputs=(y,)))
    weights = [builder.input(f"layers.{i}.weight") for i in range(layers)]
    x = builder.input("x", "arg")
    for w in weights:
        x = builder.call("layer", w, x)
    return plan(builder.program(x), FOUR)


def test_what_waits_for_no_op_is_issued_one_stretch_early() -> None:
    spans = simulate(gathering(4), machine()).trace.spans
    sums = [span for span in spans if span.stream == COMM]
    layers = [span for span in spans if span.name == "aten.relu"]
    assert sums[0].start_s == 0
    assert sums[1].start_s == sums[0].end_s
    # The third sum may start where the second stands: after the first layer.
    assert sums[2].start_s == max(layers[0].end_s, sums[1].end_s)
    assert sums[3].start_s == max(layers[1].end_s, sums[2].end_s)


def test_what_arrives_early_is_counted_in_memory() -> None:
    one = 64 * 64 * 4
    use = simulate(gathering(4), machine()).memory
    # Four weights and x; then at a layer's mm its weight, the next one's, its input and output.
    assert use.peak_bytes == 5 * one + 4 * one
    assert use.parts["temporaries"] == 4 * one
    assert ("(sent early)", one) in use.modules
    assert memory(gathering(4).local).peak_bytes == use.peak_bytes - one


def test_more_chips_cost_the_simulation_nothing() -> None:
    costed: list[str] = []

    def counting(op: Op) -> Cost:
        costed.append(op.name)
        return ops.cost(op)

    def spans(chips: int, layers: int) -> int:
        costed.clear()
        big = machine((level("supernode", 1000),))
        mesh = Mesh((("dp", chips),))
        local = plan(layered(layers, reduce_over="dp"), mesh, layered(1))
        return len(simulate(local, big, cost=counting).trace.spans)

    assert spans(2, 10) == spans(1000, 10)
    few = (spans(2, 10), len(costed))[1]
    assert (spans(2, 500), len(costed)) == (1500, few)


def test_a_wrong_cost_is_seen() -> None:
    def free(op: Op) -> Cost:
        return Cost()

    right = simulate(plan(layered(3), ONE), machine())
    assert simulate(plan(layered(3), ONE), machine(), cost=free).step_s == 0 < right.step_s


def test_utilisation_counts_the_whole_program_over_all_chips() -> None:
    sim = simulate(plan(layered(1, side=64), FOUR, layered(4, side=64)), machine(), tokens=100)
    assert sim.model_flops == 4 * 2 * 64**3
    assert sim.dtype == "float32"
    assert sim.mfu == pytest.approx(4 * 2 * 64**3 / (4 * 1e12 * sim.step_s))
    assert sim.tokens_per_s == pytest.approx(100 / sim.step_s)
    assert sim.tokens_per_s_per_chip == pytest.approx(25 / sim.step_s)


def test_a_chip_that_always_computes_draws_its_share_of_the_power() -> None:
    busy = simulate(plan(layered(2), FOUR), machine(), tokens=1)
    assert busy.power_w == pytest.approx(4 * 1000)
    waiting = simulate(plan(layered(2, reduce_over="dp"), FOUR), machine(), tokens=1)
    share = waiting.compute_s / waiting.step_s
    assert waiting.power_w == pytest.approx(4000 * (0.25 + 0.75 * share))
    assert waiting.tokens_per_joule == pytest.approx(1 / (waiting.power_w * waiting.step_s))


def test_the_share_that_rests_on_guesses_is_that_of_the_launches() -> None:
    sim = simulate(plan(layered(5), ONE), machine(launch_s=2e-6))
    assert sim.guessed_share == pytest.approx(10 * 2e-6 / sim.step_s)
    assert simulate(plan(layered(5), ONE), machine(launch_s=0)).guessed_share == 0


def test_the_share_that_rests_on_guesses_is_never_more_than_all() -> None:
    sim = simulate(plan(layered(1), ONE), machine())
    rounded = replace(sim, by_kind={"guessed": sim.step_s * (1 + 1e-13)})
    assert rounded.guessed_share == 1


def test_memory_is_counted_over_time_and_against_the_capacity() -> None:
    local = plan(layered(4), ONE)
    sim = simulate(local, machine(capacity_bytes=1e9))
    values = [counter.value for counter in sim.trace.counters if counter.name == MEMORY]
    assert max(values) == sim.memory.peak_bytes
    assert sim.fits
    assert not simulate(local, machine(capacity_bytes=sim.memory.peak_bytes - 1)).fits


def test_a_plan_for_more_chips_than_there_are_is_refused() -> None:
    with pytest.raises(LayoutError, match="has 8 chips, not 16"):
        simulate(plan(layered(1), Mesh((("dp", 16),))), machine())


def test_an_unknown_collective_is_refused() -> None:
    local = layered(1, reduce_over="dp")
    (block,) = local.blocks
    renamed = tuple(
        replace(op, name="fabric.gossip") if op.name.startswith("fabric.") else op
        for op in block.ops
    )
    strange = replace(local, blocks=(replace(block, ops=renamed),))
    with pytest.raises(UnknownOp, match=r"no time is known for .*fabric\.gossip"):
        simulate(plan(strange, FOUR), machine())


def test_an_op_without_a_row_is_refused() -> None:
    builder = Builder()
    program = builder.program(builder.op("aten.strange", builder.input("x", "arg")))
    with pytest.raises(UnknownOp, match=r"aten\.strange"):
        simulate(plan(program, ONE), machine())


def test_the_trace_carries_the_configuration() -> None:
    made: Plan = plan(layered(1), FOUR)
    meta = simulate(made, machine(), tokens=7).trace.meta
    assert (meta["mesh"], meta["tokens"], meta["machine"]) == ({"dp": 4}, 7, "tiny")
    numbers = meta["machine_numbers"]
    assert isinstance(numbers, dict)
    assert "levels.node.latency_s" in numbers
