from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report.laid import BATCH, HIDDEN, LAYERS, TOKENS, WIDTH, gpt_plan, gpt_tiny, mlp_plan
from supernode.errors import LayoutError, UnknownOp
from supernode.ir import CALL, TensorType
from supernode.plan import Layout, Mesh, Plan
from supernode.report import explanation
from supernode.report.repeats import common_name, pattern_of
from supernode.report.rows import Laid
from supernode.simulate import simulate
from tiny import layered, level, machine, plan

UP = LAYERS * HIDDEN * WIDTH * 4
"""Bytes of the up projections of all layers."""


def named(rows: tuple[Laid, ...], name: str) -> Laid:
    """The first row of that name."""
    return next(row for row in rows if row.name == name)


def test_layers_that_agree_are_one_row() -> None:
    rows = explanation(gpt_plan("fsdp=2,tp=2")).stored
    up = named(rows, "blocks.*.mlp.up.weight")
    assert up.count == LAYERS
    assert up.whole == TensorType("float32", (HIDDEN, WIDTH))
    assert up.layout == Layout((("tp",), ("fsdp",)))
    assert up.piece.shape == (HIDDEN // 2, WIDTH // 2)
    assert up.bytes_per_chip == UP // 4
    assert "tp splits dim 0" in up.reason


def test_layers_of_different_shape_are_not() -> None:
    rows = [row for row in explanation(mlp_plan("dp=2")).stored if row.role == "param"]
    shown = [(row.name, row.count) for row in rows]
    assert shown == [("layers.*.linear.weight", 2), ("layers.2.linear.weight", 1)]


@pytest.mark.parametrize("line", ["", "dp=2", "zero1=4", "fsdp=2,tp=2,sp"])
def test_what_is_stored_is_what_a_chip_holds(line: str) -> None:
    of = gpt_plan(line)
    explained = explanation(of)
    assert explained.stored_bytes == sum(value.type.size_bytes for value in of.local.main.inputs)
    roles = Counter(port.role for port in of.program.inputs if port.role != "host")
    found: Counter[str] = Counter()
    for row in explained.stored:
        found[row.role] += row.count
    assert found == roles


def stored_on(of: Plan, rank: int) -> int:
    """The bytes of the inputs that a chip has in its own memory."""
    pairs = zip(of.local_of(rank).main.inputs, of.inputs, strict=True)
    return sum(
        value.type.size_bytes
        for value, layout in pairs
        if layout is not None and not layout.place and layout.holds(of.mesh, rank)
    )


@pytest.mark.parametrize(
    "line", ["pp=2,tp=2", "fsdp=2,offload=optimizer", "pp=2,offload=optimizer+parameters"]
)
def test_stages_and_places_hold_what_is_theirs(line: str) -> None:
    of = gpt_plan(line)
    explained = explanation(of)
    assert explained.stored_bytes == max(stored_on(of, rank) for rank in range(of.mesh.size))
    assert all(0 not in row.piece.shape for row in explained.stored)


def test_only_state_that_lies_otherwise_strays() -> None:
    assert not any(row.strays for row in explanation(gpt_plan("fsdp=4")).stored)
    rows = explanation(gpt_plan("zero1=4")).stored
    moments = named(rows, "optimizer.*[blocks.*.mlp.up.weight]")
    assert moments.strays
    assert moments.count == 2 * LAYERS
    assert not any(row.strays for row in rows if row.role == "param" or not row.whole.shape)


def test_activations_lie_as_their_ops_do() -> None:
    rows = explanation(gpt_plan("fsdp=2,tp=2,sp")).activations
    up, down = named(rows, "blocks.*.mlp.up"), named(rows, "blocks.*.mlp.down")
    # As the user's code sees it, not as the two dims that the matmul sees.
    assert up.whole.shape == (BATCH, TOKENS, HIDDEN)
    assert up.layout == Layout((("fsdp",), (), ("tp",)))
    assert down.layout == Layout((("fsdp",), (), ()), (("tp", "sum"),))
    assert named(rows, "blocks.*.mlp_norm").layout == Layout((("fsdp",), ("tp",), ()))
    # The first layer gets its input in another layout than the rest: two forms of one block.
    assert len(gpt_plan("fsdp=2,tp=2,sp").local.counts()) > len(gpt_tiny().counts())
    assert up.count == down.count == LAYERS


def made_by(of: Plan) -> Counter[tuple[str, TensorType]]:
    """What the forward ops of each module make in a step, by their own programs, views too."""
    found: Counter[tuple[str, TensorType]] = Counter()
    for _, local in of.stages():
        counts = local.counts()
        for block in local.all_blocks():
            for op in block.ops:
                for value in op.outputs if op.name != CALL and op.site.phase == "forward" else ():
                    if isinstance(value.type, TensorType):
                        found[pattern_of(op.site.module), value.type] += counts.get(block.name, 1)
    return found


@pytest.mark.parametrize(
    "line",
    [
        *("", "dp=2,micro=2", "fsdp=2,tp=2,sp,micro=4", "pp=2,micro=4", "pp=2,tp=2,micro=4"),
        *("pp=1/tp=2,micro=4", "pp=tp=2+sp/fsdp=2+tp=2,micro=2", "pp=1/dp=2"),
    ],
)
def test_activations_are_those_of_the_chips_own_programs(line: str) -> None:
    of = gpt_plan(line)
    made = made_by(of)
    rows = explanation(of).activations
    assert {row.name for row in rows} >= {"blocks.*.mlp.up", "blocks.*.attention", "lm_head", ""}
    for row in rows:
        assert 0 < row.count <= made[pattern_of(row.name), row.piece], row


def test_microbatches_and_stages_of_their_own_make_parts_of_the_batch() -> None:
    def up(line: str) -> list[tuple[str, int, tuple[int, ...], tuple[int, ...]]]:
        rows = explanation(gpt_plan(line)).activations
        found = [row for row in rows if row.name == "blocks.*.mlp.up"]
        return [(str(row.layout), row.count, row.whole.shape, row.piece.shape) for row in found]

    whole = (BATCH, TOKENS, HIDDEN)
    assert up("dp=2,micro=2") == [("[dp*micro, -, -]", 2 * LAYERS, whole, (2, TOKENS, HIDDEN))]
    part = (BATCH // 4, TOKENS, HIDDEN)
    assert up("pp=1/tp=2,micro=4") == [
        ("[-, -, -] pp@0", 4, part, part),
        ("[-, -, tp] pp@1", 4, part, (BATCH // 4, TOKENS, HIDDEN // 2)),
    ]


def test_activations_of_a_module_come_largest_first() -> None:
    rows = explanation(gpt_plan("dp=2")).activations
    modules = {name: list(same) for name, same in groupby(rows, key=lambda row: row.name)}
    assert len(rows) == sum(map(len, modules.values())) > len(modules)
    for same in modules.values():
        sizes = [row.piece.size_bytes for row in same]
        assert sizes == sorted(sizes, reverse=True)
    assert list(modules)[-2:] == ["lm_head", ""]


def test_one_chip_holds_all_and_sends_nothing() -> None:
    explained = explanation(gpt_plan(""))
    assert all(row.piece == row.whole for row in explained.stored + explained.activations)
    assert explained.activations
    assert explained.traffic == explained.totals == ()
    assert explained.sent_bytes == 0


def lines() -> st.SearchStrategy[str]:
    """Layout lines of up to four axes, some with tokens split too."""
    axes = st.lists(st.sampled_from(["dp", "zero1", "fsdp", "tp"]), unique=True, max_size=4)
    sizes = st.lists(st.sampled_from([2, 4]), min_size=4, max_size=4)
    return st.builds(
        lambda names, sizes, tokens: ",".join(
            [f"{name}={size}" for name, size in zip(names, sizes, strict=False)]
            + ["sp"] * (tokens and "tp" in names)
        ),
        axes,
        sizes,
        st.booleans(),
    )


@given(line=lines())
@settings(max_examples=12)
def test_all_sums_agree_with_each_other_and_with_the_simulator(line: str) -> None:
    try:
        of = gpt_plan(line)
    except LayoutError:
        return
    explained = explanation(of)
    rows: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for row in explained.traffic:
        rows[row.axis, row.collective] += row.sent_bytes
        calls[row.axis, row.collective] += row.calls
    totals = {(total.axis, total.collective): total for total in explained.totals}
    assert rows.keys() == totals.keys()
    simulated = simulate(of, machine([level("all", of.mesh.size)])).sent_bytes
    by_collective: Counter[str] = Counter()
    for key, total in totals.items():
        assert total.sent_bytes == pytest.approx(rows[key])
        assert total.size == dict(of.mesh.axes)[total.axis]
        assert 0 < total.calls <= calls[key]
        by_collective[total.collective] += total.sent_bytes
    assert by_collective == pytest.approx(simulated)
    assert sum(total.calls for total in explained.totals) == collectives(of)


def collectives(of: Plan) -> int:
    """How many a step runs."""
    counts = of.local.counts()
    return sum(
        counts.get(block.name, 1)
        for block in of.local.all_blocks()
        for op in block.ops
        if op.name.startswith("fabric.")
    )


@pytest.mark.parametrize(
    ("line", "phase", "collective", "axis", "share"),
    [
        ("dp=4", "backward", "all_reduce", "dp", 2 * 3 / 4),
        ("fsdp=4", "forward", "all_gather", "fsdp", 3 / 4),
        ("fsdp=4", "backward", "all_gather", "fsdp", 3 / 4),
        ("fsdp=4", "backward", "reduce_scatter", "fsdp", 3 / 4),
    ],
)
def test_a_weight_costs_its_module_what_the_textbook_says(
    line: str, phase: str, collective: str, axis: str, share: float
) -> None:
    (found,) = (
        row
        for row in explanation(gpt_plan(line)).traffic
        if (row.module, row.phase, row.collective, row.axis)
        == ("blocks.*.mlp.up", phase, collective, axis)
    )
    assert found.sent_bytes == share * UP
    assert found.calls == LAYERS


def test_tensor_parallel_adds_up_what_each_module_makes() -> None:
    rows = explanation(gpt_plan("tp=2")).traffic
    activation = LAYERS * BATCH * TOKENS * WIDTH * 4
    forward = [row for row in rows if row.phase == "forward" and row.module.startswith("blocks")]
    assert [(row.module, row.sent_bytes) for row in forward] == [
        ("blocks.*.attention.output", activation),
        ("blocks.*.mlp.down", activation),
    ]


def test_modules_that_share_a_message_count_it_once_each() -> None:
    explained = explanation(gpt_plan("dp=2"))
    in_blocks = [row for row in explained.traffic if row.module.startswith("blocks")]
    assert {row.calls for row in in_blocks} == {LAYERS}
    (total,) = explained.totals
    assert total.calls < sum(row.calls for row in explained.traffic)


def test_a_collective_that_is_not_known_is_refused() -> None:
    local = layered(1, reduce_over="dp")
    (block,) = local.blocks
    strange = tuple(
        replace(op, name="fabric.scan") if op.name.startswith("fabric.") else op for op in block.ops
    )
    changed = replace(local, blocks=(replace(block, ops=strange),))
    with pytest.raises(UnknownOp, match=r"not known: what .*fabric\.scan"):
        explanation(plan(changed, Mesh((("dp", 2),)), local))


def test_numbers_of_layers_become_stars_and_other_numbers_stay() -> None:
    assert pattern_of("blocks.10.fc2.weight") == "blocks.*.fc2.weight"
    assert common_name(["a.0.b.1", "a.7.b.1"]) == "a.*.b.1"
    assert common_name(["o.m[a.0]", "o.v[a.1]"]) == "o.*[a.*]"
    assert common_name(["a.0.b"]) == "a.0.b"


def test_stages_send_on_their_mean_what_a_simulation_says() -> None:
    of = gpt_plan("pp=2,dp=2,micro=2")
    sent = Counter[str]()
    for total in explanation(of).totals:
        sent[total.collective] += total.sent_bytes
    assert sent["send"] > 0
    assert sent == pytest.approx(simulate(of, machine([level("all", of.mesh.size)])).sent_bytes)
