"""What no prediction may do, for every machine, collective and kind of op, over wide ranges."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from supernode.machine import Machine, catalogue, load_machine, what_if
from supernode.ops import Cost, Product, Scores
from supernode.simulate import access_time, collective_time, experts_time, op_time
from supernode.simulate.collective_time import COLLECTIVES, Collective
from supernode.simulate.comm.tiers import tiers
from supernode.simulate.cost.attention import visible

SLACK = 1 + 1e-9
NAMES = (*catalogue(), "cloudmatrix384@die", "16xhgx-h100", "128xatlas-800t-a2")
MACHINES = {name: load_machine(name) for name in NAMES}

machines = st.sampled_from(NAMES)
collectives = st.sampled_from(COLLECTIVES)
sizes = st.floats(0, 11).map(lambda power: 10**power)
groups = st.tuples(st.sampled_from([1, 2, 3, 8, 16]), st.integers(2, 768))
dtypes = st.sampled_from(["bfloat16", "float8_e4m3fn", "float32", "int8", "float16"])
lengths = st.integers(0, 17).map(lambda power: 2**power)
counts = st.integers(1, 300)


def seconds(machine: Machine, kind: Collective, data: float, group: tuple[int, int]) -> float:
    stride, size = group
    return collective_time(kind, data, machine=machine, stride=stride, size=size).time_s


def wire_bound_s(machine: Machine, kind: Collective, data: float, group: tuple[int, int]) -> float:
    """What the links of one chip, and those of one group at the outermost level, need at least."""
    stride, size = group
    found = tiers(machine, stride=stride, size=size)
    planes = [t.level for i, t in enumerate(found) if i == 0 or not t.level.same_links]
    own_s = data * (size - 1) / size / sum(c.bandwidth_bytes_per_s.value for c in planes)
    outer, inside = found[-1], size // found[-1].factor
    across = data * (outer.factor - 1) / outer.factor
    rate = outer.level.bandwidth_bytes_per_s.value
    shared = 1 if kind == "all_to_all" else inside
    return max(own_s, across / (shared * rate))


def assert_obeys_the_wire(
    machine: Machine, kind: Collective, data: float, group: tuple[int, int], time_s: float
) -> None:
    assert time_s * SLACK >= wire_bound_s(machine, kind, data, group)


@settings(max_examples=400)
@given(machines, collectives, sizes, groups)
def test_no_collective_beats_links_nics_or_switches(
    on: str, kind: Collective, data: float, group: tuple[int, int]
) -> None:
    machine = MACHINES[on]
    assume(group[0] * group[1] <= machine.chips)
    assert_obeys_the_wire(machine, kind, data, group, seconds(machine, kind, data, group))


def test_the_bound_on_collectives_can_fail() -> None:
    machine, group = MACHINES["16xhgx-h100"], (1, 128)
    bound_s = wire_bound_s(machine, "all_to_all", 1e9, group)
    assert bound_s == pytest.approx(1e9 * 15 / 16 / 50e9)
    with pytest.raises(AssertionError):
        assert_obeys_the_wire(machine, "all_to_all", 1e9, group, bound_s / 14)


@given(machines, collectives, sizes, groups, st.floats(1, 1e3))
def test_more_bytes_never_take_less(
    on: str, kind: Collective, data: float, group: tuple[int, int], more: float
) -> None:
    machine = MACHINES[on]
    assume(group[0] * group[1] <= machine.chips)
    few, many = (seconds(machine, kind, bytes_, group) for bytes_ in (data, data * more))
    assert few <= many * SLACK


@given(machines, collectives, sizes, groups, st.data())
def test_faster_links_never_take_longer(
    on: str, kind: Collective, data: float, group: tuple[int, int], draw: st.DataObject
) -> None:
    machine = MACHINES[on]
    assume(group[0] * group[1] <= machine.chips)
    level = draw.draw(st.sampled_from(machine.levels)).name
    faster = what_if(machine, f"levels.{level}.bandwidth=2x")
    before, after = (seconds(each, kind, data, group) for each in (machine, faster))
    assert after <= before * SLACK


@given(machines, collectives, groups)
def test_both_ends_of_a_collective(on: str, kind: Collective, group: tuple[int, int]) -> None:
    machine = MACHINES[on]
    assume(group[0] * group[1] <= machine.chips)
    small, large = seconds(machine, kind, 1, group), seconds(machine, kind, 1e13, group)
    assert small >= machine.chip.launch_overhead_s.value
    # A cube mesh and two chips of a mesh use a part of their links; nothing is slower than that.
    assert large <= 60 * wire_bound_s(machine, kind, 1e13, group)


@given(
    machines,
    st.sampled_from(["dispatch", "combine"]),
    sizes,
    st.integers(1, 9),
    st.booleans(),
    st.integers(2, 384),
)
def test_no_dispatch_beats_the_wire(
    on: str, way: str, data: float, copies: int, once: bool, size: int
) -> None:
    machine = MACHINES[on]
    assume(size <= machine.chips)
    assert way in ("dispatch", "combine")
    timing = experts_time(way, data, copies=copies, once=once, machine=machine, stride=1, size=size)
    outer = tiers(machine, stride=1, size=size)[-1]
    least = data / copies if once else data
    rate = outer.level.bandwidth_bytes_per_s.value
    met = 1 if not once else outer.factor * (1 - (1 - 1 / outer.factor) ** copies)
    bound_s = least * met * (outer.factor - 1) / outer.factor / rate
    assert timing.time_s * SLACK >= bound_s
    assert timing.time_s * SLACK >= timing.bound_s


@given(machines, st.sampled_from(["read", "write", "host_read", "host_write"]), sizes)
def test_no_access_beats_the_link(on: str, way: str, data: float) -> None:
    machine = MACHINES[on]
    assert way in ("read", "write", "host_read", "host_write")
    for stride in {1, machine.chips - 1}:
        timing = access_time(way, data, machine=machine, stride=stride)
        assert timing.time_s >= timing.bound_s


@st.composite
def products(draw: st.DrawFn, dtypes: st.SearchStrategy[str] = dtypes) -> Cost:
    m, n, k = draw(lengths), draw(lengths), draw(lengths)
    groups, ragged = draw(st.integers(1, 64)), draw(st.booleans())
    size = 2.0
    shape = Product(groups=groups, m=m, n=n, k=k, ragged=ragged)
    read, written = size * groups * (m + n) * k, size * groups * m * n
    return Cost(2.0 * groups * m * n * k, read, written, "matmul", draw(dtypes), shape)


@st.composite
def attentions(draw: st.DrawFn) -> Cost:
    kv_heads, ratio, batch = draw(st.integers(1, 16)), draw(st.integers(1, 32)), draw(counts)
    queries = draw(st.one_of(st.just(1), lengths))
    keys = queries * draw(st.sampled_from([1, 1, 2, 64]))
    depth = draw(st.sampled_from([64, 128, 192, 256, 576]))
    backward = draw(st.booleans())
    heads = kv_heads * ratio
    shape = Scores(
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        queries=queries,
        keys=keys,
        depth=depth,
        value_depth=depth,
        causal=draw(st.booleans()),
        backward=backward,
    )
    flops = (10.0 if backward else 4.0) * batch * heads * queries * keys * depth
    read = 2.0 * batch * depth * (heads * queries * (2 if backward else 1) + 2 * kv_heads * keys)
    return Cost(flops, read, read / 3, "matmul", "bfloat16", shape)


streams = st.builds(
    Cost,
    flops=st.floats(0, 1e12),
    bytes_read=sizes,
    bytes_written=sizes,
    unit=st.just("vector"),
    dtype=dtypes,
)
ops = st.one_of(products(), attentions(), streams)


def bound_s(cost: Cost, machine: Machine) -> float:
    """The datasheet's rates, for what any kernel must compute and move."""
    chip, shape = machine.chip, cost.shape
    peak = chip.peak(cost.dtype) if cost.unit == "matmul" else chip.vector_flops_per_s
    flops, moved = cost.flops, cost.bytes_read + cost.bytes_written
    if isinstance(shape, Scores):
        flops *= visible(shape.queries, shape.keys, 0, causal=shape.causal)
        moved = 2.0 * shape.batch * shape.depth * 2 * shape.kv_heads * shape.keys
    elif isinstance(shape, Product) and shape.ragged:
        moved = cost.bytes_written
    elif cost.unit == "vector" and "stream.any" in chip.kernels:
        moved = max(moved - chip.kernels["stream.any"]["cache_bytes"], 0.0)
    return max(flops / peak.value, moved / chip.memory.bandwidth_bytes_per_s.value)


@settings(max_examples=600)
@given(machines, ops)
def test_no_op_beats_arithmetic_or_memory(on: str, cost: Cost) -> None:
    machine = MACHINES[on]
    timing = op_time(cost, machine.chip)
    assert timing.time_s * SLACK >= bound_s(cost, machine)
    assert timing.time_s >= timing.bound_s


@settings(max_examples=300)
@given(machines, ops, st.sampled_from(["memory.bandwidth", "peak_flops_per_s", "vector_flops"]))
def test_a_faster_chip_never_takes_longer(on: str, cost: Cost, what: str) -> None:
    machine = MACHINES[on]
    key = f"chip.{what}"
    if what == "peak_flops_per_s":
        unit = machine.chip.unit(cost.dtype)
        assume(unit != "vector")
        key = f"{key}.{unit}"
    before = op_time(cost, machine.chip).time_s
    after = op_time(cost, what_if(machine, f"{key}=2x").chip).time_s
    assert after <= before * SLACK


@settings(max_examples=300)
@given(machines, lengths, lengths, lengths, st.sampled_from("mnk"))
def test_a_larger_product_never_takes_less(on: str, m: int, n: int, k: int, which: str) -> None:
    machine = MACHINES[on]

    def time_s(m: int, n: int, k: int) -> float:
        shape = Product(m=m, n=n, k=k)
        read, written = 2.0 * (m + n) * k, 2.0 * m * n
        cost = Cost(2.0 * m * n * k, read, written, "matmul", "bfloat16", shape)
        return op_time(cost, machine.chip).time_s

    sizes = {"m": m, "n": n, "k": k}
    larger = sizes | {which: 2 * sizes[which]}
    assert time_s(**sizes) <= time_s(**larger) * SLACK


@given(machines)
def test_both_ends_of_a_product(on: str) -> None:
    machine = MACHINES[on]
    chip = machine.chip
    tiny = op_time(Cost(2.0, 4.0, 2.0, "matmul", "bfloat16", Product(m=1, n=1, k=1)), chip)
    assert 5e-7 < tiny.time_s < 2e-5
    side = 16384
    cost = Cost(
        2.0 * side**3,
        4.0 * side**2,
        2.0 * side**2,
        "matmul",
        "bfloat16",
        Product(m=side, n=side, k=side),
    )
    assert 0.5 < cost.flops / op_time(cost, chip).time_s / chip.peak("bfloat16").value < 1
