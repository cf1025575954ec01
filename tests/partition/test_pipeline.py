"""Pipelines: stages cut on the graph give the one-chip result, whatever crosses them."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, groupby, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from emulate import run_plan, run_program
from supernode.capture import Captured, capture
from supernode.errors import LayoutError
from supernode.ir import CALL
from supernode.models import recipe
from supernode.partition import parse_line, partition
from supernode.partition.chunks import cut
from supernode.plan import Plan, memory, plan_from_json, plan_to_json
from zoo import BATCH, CNNS, ZOO, zoo_step
from zoo_runs import NO_TP, SINGLE

LINES = (
    "pp=2",
    "pp=2,micro=2,schedule=gpipe,recompute=full",
    "pp=2,micro=2",
    "pp=2,vp=2,micro=2",
    "pp=2,micro=2,schedule=zb",
)


@lru_cache
def captured(batch: int = 8) -> Captured:
    job = recipe("llama-tiny").build(batch=batch)
    return capture(job.step, job.model, job.optimizer, job.inputs, name="llama-tiny")


def plan(line: str) -> Plan:
    return partition(captured().program, line)


def check(name: str, line: str, times: int = 1) -> None:
    """One step against the captured one; the batch of the zoo so many times as large."""
    dtype = torch.float32 if name in SINGLE else torch.float64
    made = zoo_step(name, dtype, batch=times * BATCH)
    found = capture(made.step, made.model, made.optimizer, made.args)
    known = found.inputs() | found.host_values() | found.bind(*made.args)
    inputs = [known[port.name] for port in found.program.inputs]
    want = run_program(found.program, inputs)
    got = run_plan(partition(found.program, line), inputs)
    for port, one, many in zip(found.program.outputs, want, got, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point():
            scale = float(one.double().square().mean().sqrt())
            assert ((many - one).abs() <= 1e-3 * scale + 1e-7).all(), port.name


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", CNNS)
def test_vision_models_in_stages(name: str, line: str) -> None:
    """Skip connections are edges; batch statistics need all parts before the next layer."""
    check(name, line)


TRANSFORMERS = [
    pytest.param(name, marks=pytest.mark.slow if name == "t5" else pytest.mark.zoo)
    for name in ZOO
    if name not in CNNS
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_the_zoo_in_stages(name: str, line: str) -> None:
    """Tied weights, encoders and decoders, experts."""
    pytest.importorskip("transformers")
    check(name, line)


ORDERS = ("schedule=gpipe", "schedule=1f1b", "vp=2", "schedule=zb", "vp=2,schedule=zb")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axis", ["dp=2", "fsdp=2", "tp=2"])
def test_every_order_with_every_way_to_split(axis: str, order: str) -> None:
    check_llama(f"pp=2,{axis},micro=4,{order}")


SPLIT = (
    "pp=2,dp=2,micro=2,schedule=gpipe",
    "pp=2,fsdp=2,micro=2",
    "pp=2,tp=2,micro=2,schedule=zb",
)


@pytest.mark.zoo
@pytest.mark.parametrize("line", SPLIT)
@pytest.mark.parametrize("name", ZOO)
def test_models_of_the_zoo_in_stages_of_two_chips(name: str, line: str) -> None:
    if name not in CNNS:
        pytest.importorskip("transformers")
    if name in NO_TP and "tp" in line:
        pytest.skip(NO_TP[name])
    if name == "qwen2.5-vl":  # it has two images, of known sizes
        check(name, line.replace(",micro=2", ""))
    else:
        check(name, line, 2)


@pytest.mark.parametrize(
    "line",
    [
        "pp=4,tp=2,micro=4,schedule=gpipe",
        "pp=4,fsdp=2,micro=4,schedule=zb,recompute=full",
        "pp=2,vp=2,tp=2,sp,micro=4",
        "pp=2,zero1=2,micro=2",
        "pp=2,cp=2,micro=2",
        "pp=2,dp=3",
        "pp=2,dp=3,micro=2",
        "pp=2,vp=2,micro=6,schedule=zb",
        "pp=4,fsdp=3,schedule=gpipe",
    ],
)
def test_stages_with_every_other_axis(line: str) -> None:
    check_llama(line)


def check_llama(line: str) -> None:
    job = recipe("llama-tiny").build(batch=8)
    values = {**captured().inputs(), **captured().bind(*job.inputs)}
    inputs = [values[port.name] for port in captured().program.inputs]
    want, got = run_program(captured().program, inputs), run_plan(plan(line), inputs)
    for port, one, many in zip(captured().program.outputs, want, got, strict=True):
        if isinstance(one, Tensor) and one.is_floating_point() and port.role != "param":
            torch.testing.assert_close(many, one, rtol=2e-3, atol=1e-5, msg=port.name)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["pp=2,cp=2,micro=2", "pp=2,tp=2,sp,micro=2,schedule=zb"])
def test_a_first_layer_unlike_the_others_with_tokens_in_parts(line: str) -> None:
    """What is gathered again in backward, and viewed, is of backward: no forward waits for it."""
    pytest.importorskip("transformers")
    check("deepseek-v3", line, 2)


def test_a_stage_holds_its_own_weights_only() -> None:
    whole = sum(v.tensor.size_bytes for _, v in weights(plan("")))
    staged = plan("pp=4,micro=4")
    for rank in range(4):
        local = staged.local_of(rank).main.inputs
        held = sum(local[i].tensor.size_bytes for i, _ in weights(staged))
        assert 0 < held < 0.6 * whole
    assert (
        sum(
            staged.local_of(rank).main.inputs[i].tensor.size_bytes
            for rank in range(4)
            for i, _ in weights(staged)
        )
        == whole
    )


def weights(of: Plan) -> list[tuple[int, object]]:
    pairs = zip(of.program.inputs, of.program.main.inputs, strict=True)
    return [(i, value) for i, (port, value) in enumerate(pairs) if port.role == "param"]


def test_1f1b_holds_fewer_activations_than_gpipe() -> None:
    peaks = [
        memory(plan(f"pp=2,micro=8,schedule={name}").local).parts["activations"]
        for name in ("1f1b", "gpipe")
    ]
    assert peaks[0] < 0.5 * peaks[1]


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
def test_1f1b_alternates_whatever_is_computed_again(mode: str) -> None:
    job = recipe("gpt-tiny").build(batch=8)
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    local = partition(program, f"pp=2,tp=2,sp,micro=4,recompute={mode}").local
    calls = [op for op in local.main.ops if op.name == CALL and op.site.phase != "optimizer"]
    order = "".join(phase[0] for phase, _ in groupby(op.site.phase for op in calls))
    counts = [len(list(each)) for _, each in groupby(op.site.phase for op in calls)]
    assert order == "fbfbfb"
    assert (counts[0], counts[-1]) == (2 * counts[2], 2 * counts[1])


@given(weights=st.lists(st.integers(1, 20), min_size=3, max_size=9), count=st.integers(2, 3))
def test_the_heaviest_chunk_is_as_light_as_can_be(weights: list[int], count: int) -> None:
    """Where nothing has to be sent on, against all ways to cut."""

    def heaviest(ends: Sequence[int]) -> int:
        return max(sum(weights[a:b]) for a, b in pairwise((0, *ends, len(weights))))

    found = cut([float(weight) for weight in weights], [0] * len(weights), count)
    assert found is not None
    assert len(found) == count - 1
    every = combinations(range(1, len(weights)), count - 1)
    assert heaviest(found) == min(map(heaviest, every))


def test_a_pipeline_round_trips_as_json() -> None:
    staged = plan("pp=2,dp=2,micro=2")
    assert plan_from_json(plan_to_json(staged)) == staged


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("pp=0", "expected pp=SIZE"),
        ("pp=2,schedule=zigzag", "unknown schedule=zigzag"),
        ("vp=2", "vp needs a pipeline"),
        ("schedule=1f1b", "schedule needs a pipeline"),
        ("pp=4,vp=2,micro=6", "groups of 4, there are 6"),
        ("cut=blocks.1", "cut needs a pipeline"),
        ("pp=4,cut=blocks.1/blocks.2", "cut names 2 modules, 4 chunks begin in 3 places"),
    ],
)
def test_what_is_wrong_with_a_line(line: str, text: str) -> None:
    with pytest.raises(LayoutError, match=text):
        parse_line(line)


def test_cut_where_the_user_says() -> None:
    """Three layers and the table on the first stage, then one with the head."""
    line = "pp=2,micro=2,schedule=1f1b,cut=blocks.3"
    cut_there = plan(line)
    assert cut_there.layout == line
    homes = {
        port.name: layout.only
        for port, layout in zip(cut_there.program.inputs, cut_there.inputs, strict=True)
        if layout is not None and port.role == "param"
    }
    late = ("blocks.3.", "norm.", "lm_head.")
    assert all(only == (("pp", int(name.startswith(late))),) for name, only in homes.items())
    check_llama(line)


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        ("blocks.5", r"with 'blocks.5'\n  asked: layout pp=2.*\n  fix: did you mean blocks.3"),
        ("blocks.1.mlp", "no chunk can begin with 'blocks.1.mlp'"),
        ("embedding", "embedding does not begin after the first chunk"),
        ("blocks.2/blocks.1/norm", "blocks.1 does not begin after blocks.2"),
    ],
)
def test_what_is_wrong_with_a_cut(cut: str, text: str) -> None:
    with pytest.raises(LayoutError, match=text):
        plan(f"pp={1 + len(cut.split('/'))},cut={cut}")


def test_more_stages_than_steps() -> None:
    with pytest.raises(LayoutError, match="too few for 400 chunks"):
        plan("pp=400")


def test_the_line_of_a_pipeline() -> None:
    line = parse_line("micro=8,pp=4,dp=2,vp=2", 8)
    assert (line.chips, line.parts) == (8, 8)
    assert str(line) == "pp=4,vp=2,dp=2,micro=8,schedule=1f1b"
