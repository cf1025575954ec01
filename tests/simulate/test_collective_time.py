from dataclasses import replace
from math import prod

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from supernode.errors import LayoutError
from supernode.ir import Block, Op, Port, Program, TensorType, Value
from supernode.machine import Level, Machine, load_machine
from supernode.plan import Mesh
from supernode.simulate import collective_time, experts_time, sent_bytes, simulate
from supernode.simulate.collective_time import COLLECTIVES, Collective, sent_by_level
from supernode.simulate.comm.tiers import tiers
from tiny import layered, level, machine, number, plan

LAUNCH_S = 2e-6
MESH_8 = level("node", 8, 7e9, 1e-6, 1.0, "mesh", 7)
SWITCH_8 = replace(MESH_8, topology="switch")


@st.composite
def levels(draw: st.DrawFn, name: str, chips: int) -> Level:
    return level(
        name,
        chips,
        draw(st.floats(1e8, 1e12)),
        draw(st.floats(1e-7, 1e-4)),
        draw(st.floats(0.1, 1)),
        draw(st.sampled_from(["switch", "mesh", "cube-mesh"])),
        draw(st.integers(1, 8)),
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    sizes = draw(st.sampled_from([(8,), (4, 8), (8, 48), (2, 8, 384), (4, 12)]))
    return machine([draw(levels(f"level{i}", chips)) for i, chips in enumerate(sizes)])


groups = st.tuples(st.sampled_from([1, 2, 3, 4, 8, 16]), st.sampled_from([2, 3, 4, 6, 8, 24, 48]))
collectives = st.sampled_from(COLLECTIVES)
sizes = st.floats(1, 1e11)


def fits(machine: Machine, group: tuple[int, int]) -> bool:
    return group[0] * group[1] <= machine.chips


def seconds(machine: Machine, kind: Collective, data: float, group: tuple[int, int]) -> float:
    stride, size = group
    return collective_time(kind, data, machine=machine, stride=stride, size=size).time_s


@given(machines(), collectives, sizes, groups)
def test_no_collective_is_faster_than_the_wire(
    machine: Machine, kind: Collective, data: float, group: tuple[int, int]
) -> None:
    assume(fits(machine, group))
    stride, size = group
    timing = collective_time(kind, data, machine=machine, stride=stride, size=size)
    fastest = max(level.bandwidth_bytes_per_s.value for level in machine.levels)
    assert timing.time_s >= data * (size - 1) / size / fastest * (1 - 1e-12)
    assert timing.time_s >= timing.bound_s * (1 - 1e-12)
    assert timing.time_s == pytest.approx(sum(timing.by_kind.values()))


@given(machines(), collectives, sizes, groups)
def test_the_levels_share_what_is_sent(
    drawn: Machine, kind: Collective, data_bytes: float, group: tuple[int, int]
) -> None:
    stride, size = group
    assume(stride * size <= drawn.chips)
    by_level = sent_by_level(kind, data_bytes, machine=drawn, stride=stride, size=size)
    assert min(by_level.values(), default=0) >= 0
    assert sum(by_level.values()) == pytest.approx(sent_bytes(kind, data_bytes, size))


@given(machines(), groups)
def test_the_tiers_of_a_group_multiply_to_its_size(
    machine: Machine, group: tuple[int, int]
) -> None:
    assume(fits(machine, group))
    found = tiers(machine, stride=group[0], size=group[1])
    assert prod(tier.factor for tier in found) == group[1]
    assert all(tier.factor > 1 for tier in found)


@given(machines(), collectives, sizes, groups, st.floats(1, 100), st.floats(0.01, 1), st.data())
def test_more_bandwidth_or_less_latency_is_never_slower(
    machine: Machine,
    kind: Collective,
    data: float,
    group: tuple[int, int],
    wider: float,
    quicker: float,
    choice: st.DataObject,
) -> None:
    assume(fits(machine, group))
    at = choice.draw(st.integers(0, len(machine.levels) - 1))
    old = machine.levels[at]
    better = replace(
        old,
        bandwidth_bytes_per_s=number(old.bandwidth_bytes_per_s.value * wider),
        latency_s=number(old.latency_s.value * quicker),
    )
    improved = replace(machine, levels=(*machine.levels[:at], better, *machine.levels[at + 1 :]))
    before, after = (seconds(m, kind, data, group) for m in (machine, improved))
    assert after <= before * (1 + 1e-12)


@given(collectives, sizes, st.integers(2, 400), st.floats(0, 1))
def test_splitting_a_collective_conserves_bytes(
    kind: Collective, data: float, size: int, share: float
) -> None:
    parts = (data * share, data * (1 - share))
    assert sum(sent_bytes(kind, part, size) for part in parts) == pytest.approx(
        sent_bytes(kind, data, size)
    )


def test_an_all_reduce_sends_exactly_twice_the_share_of_the_others() -> None:
    assert sent_bytes("all_reduce", 800, 8) == 1400
    assert sent_bytes("all_gather", 800, 8) == 700
    assert sent_bytes("reduce_scatter", 800, 8) == 700
    assert sent_bytes("all_to_all", 800, 8) == 700


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_tiers_send_the_bytes_that_a_flat_group_sends(kind: Collective) -> None:
    # Equal levels without latency: the time is the bytes over the bandwidth, however tiered.
    tiered = machine([level(n, c, 1e9, 0, 1.0) for n, c in (("a", 2), ("b", 8), ("c", 48))])
    expected_s = sent_bytes(kind, 1e9, 48) / 1e9 + LAUNCH_S
    assert seconds(tiered, kind, 1e9, (1, 48)) == pytest.approx(expected_s)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_one_chip_alone_takes_no_time(kind: Collective) -> None:
    assert seconds(machine(), kind, 1e9, (1, 1)) == 0


def test_a_mesh_goes_direct_over_all_its_links() -> None:
    expected_s = 7e9 * 7 / 8 / 7e9 + 1e-6 + LAUNCH_S
    assert seconds(machine([MESH_8]), "all_gather", 7e9, (1, 8)) == pytest.approx(expected_s)
    assert seconds(machine([SWITCH_8]), "all_gather", 7e9, (1, 8)) == pytest.approx(expected_s)


def test_two_chips_of_a_mesh_share_one_link() -> None:
    expected_s = 7e9 / 2 / 1e9 + 1e-6 + LAUNCH_S
    assert seconds(machine([MESH_8]), "all_gather", 7e9, (1, 2)) == pytest.approx(expected_s)


def test_a_cube_mesh_takes_the_ring() -> None:
    cube = replace(MESH_8, topology="cube-mesh", links=6)
    expected_s = 7e9 * 7 / 8 / 7e9 + 7e-6 + LAUNCH_S
    assert seconds(machine([cube]), "all_gather", 7e9, (1, 8)) == pytest.approx(expected_s)


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_two_chips_of_a_cube_mesh_share_two_of_six_links(kind: Collective) -> None:
    cube = replace(MESH_8, topology="cube-mesh", links=6)
    expected_s = 7e9 / 2 / (7e9 * 2 / 6) + 1e-6 + LAUNCH_S
    assert seconds(machine([cube]), kind, 7e9, (1, 2)) == pytest.approx(expected_s)


def test_an_exchange_on_a_cube_mesh_crosses_two_links() -> None:
    cube = replace(MESH_8, topology="cube-mesh", links=6)
    expected_s = 2 * 7e9 * 7 / 8 / 7e9 + 2e-6 + LAUNCH_S
    assert seconds(machine([cube]), "all_to_all", 7e9, (1, 8)) == pytest.approx(expected_s)


def test_a_small_message_goes_straight_through_the_outermost_level() -> None:
    even = machine([level("node", 4, 1e9, 1e-6), level("supernode", 8, 1e9, 1.5e-6)])
    assert seconds(even, "all_gather", 0, (1, 8)) == pytest.approx(1.5e-6 + LAUNCH_S)


def test_nodes_reduce_among_themselves_before_they_meet() -> None:
    # 4 chips at 5 GB/s, then 2 at 0.5 GB/s, which see a quarter of the data.
    once_s = 1e9 * 3 / 4 / 5e9 + 1e-6 + 0.25e9 / 2 / 0.5e9 + 1e-6
    assert seconds(machine(), "reduce_scatter", 1e9, (1, 8)) == pytest.approx(once_s + LAUNCH_S)
    assert seconds(machine(), "all_reduce", 1e9, (1, 8)) == pytest.approx(2 * once_s + LAUNCH_S)
    # Neighbours along an outer axis are in different nodes.
    across_s = 1e9 / 2 / 0.5e9 + 1e-6 + LAUNCH_S
    assert seconds(machine(), "reduce_scatter", 1e9, (4, 2)) == pytest.approx(across_s)


def test_a_group_wider_than_the_machine_is_refused() -> None:
    with pytest.raises(LayoutError, match="has 8 chips, not 16"):
        seconds(machine(), "all_reduce", 1.0, (1, 16))


def test_small_arrays_are_added_at_once_where_a_stack_brings_that() -> None:
    h100 = load_machine("hgx-h100")
    for data, faster in ((1024, True), (1e9, False)):
        by_library, at_once = (
            collective_time(
                "all_reduce", data, machine=h100, stride=1, size=8, small_at_once=small
            ).time_s
            for small in (False, True)
        )
        assert (at_once < by_library / 3) == faster
        assert at_once <= by_library


def test_tiers_of_a_measured_library_run_beside_each_other_unless_they_share_links() -> None:
    cloudmatrix, data = load_machine("cloudmatrix384"), 1e10
    node, both = (seconds(cloudmatrix, "all_gather", data, (1, size)) for size in (8, 384))
    assert both > node
    two = load_machine("2xhgx-h100")
    own, network = (data * share for share in (7 / 8 / 450e9, 1 / 2 / 8 / 50e9))
    assert seconds(two, "all_gather", data, (1, 16)) < 1.6 * max(own, network)


def test_routed_tokens_go_by_their_own_kernels() -> None:
    h100 = load_machine("hgx-h100")
    source, result = (Value(i, TensorType("bfloat16", (2**20,))) for i in range(2))
    op = Op(name="fabric.dispatch", args=((source,), "ep", 8, True), outputs=(result,))
    block = Block(name="main", inputs=(source,), ops=(op,), outputs=(result,))
    program = Program(
        name="tokens",
        main=block,
        inputs=(Port(name="x", role="arg"),),
        outputs=(Port(name="y", role="result"),),
        updates=(None,),
    )
    sim = simulate(plan(program, Mesh((("ep", 8),)), layered(1)), h100)
    alone = experts_time("dispatch", 2.0**21, copies=8, once=True, machine=h100, stride=1, size=8)
    assert sim.comm_s == pytest.approx(alone.time_s)
    assert sim.sent_bytes == {"all_to_all": 2**21 * 7 / 8}
