"""Values in other places: the same bits, less memory on the chip, transfers as memory allows."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from emulate import run_plan
from programs import Builder
from supernode.capture import Captured, capture
from supernode.errors import DoesNotFit, LayoutError, VerifyError
from supernode.ir import CALL, FETCH, SEND, STORE, WAIT, Op, Program, Value, verify
from supernode.models import Job, recipe
from supernode.partition import parse_line, partition, partition_within
from supernode.partition.fit import LIMITS
from supernode.partition.offload import KINDS
from supernode.plan import Plan, memory, plan_from_json, plan_to_json
from zoo import CNNS, zoo_step


@lru_cache
def captured(name: str = "gpt-tiny", *, clipped: bool = True) -> Captured:
    job = recipe(name).build()
    step = job.step if clipped else unclipped(job)
    return capture(step, job.model, job.optimizer, job.inputs, name=name)


def unclipped(job: Job) -> Callable[[Tensor, Tensor], Tensor]:
    """A step in which no update waits for the gradients of other weights."""

    optimizer = job.optimizer
    assert isinstance(optimizer, torch.optim.Optimizer)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        loss = job.model(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


@lru_cache
def inputs(name: str = "gpt-tiny", *, clipped: bool = True) -> list[Any]:
    found, job = captured(name, clipped=clipped), recipe(name).build()
    known = found.inputs() | found.host_values() | found.bind(*job.inputs)
    return [known[port.name] for port in found.program.inputs]


@lru_cache
def planned(line: str, name: str = "gpt-tiny", *, clipped: bool = True) -> Plan:
    return partition(captured(name, clipped=clipped).program, line)


@lru_cache
def outcome(line: str, name: str = "gpt-tiny", *, clipped: bool = True) -> list[Any]:
    return run_plan(planned(line, name, clipped=clipped), inputs(name, clipped=clipped))


def check_bits(program: Program, want: list[Any], got: list[Any]) -> None:
    for port, a, b in zip(program.outputs, want, got, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, port.name


@pytest.mark.parametrize("kind", [*KINDS, "optimizer+gradients", "all"])
def test_each_kind_gives_the_same_bits_on_one_chip(kind: str) -> None:
    check_bits(captured().program, outcome(""), outcome(f"offload={kind}"))


LAYOUTS = (
    "recompute=full",
    "micro=2",
    "dp=2",
    "dp=3",
    "zero1=2",
    "fsdp=2,micro=2,recompute=full",
    "tp=2,sp",
    "pp=2,micro=2",
    "pp=2,vp=2,micro=2,recompute=selective",
)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_bits_that_it_gives_in_memory(layout: str) -> None:
    place = "@peers" if "dp" in layout else ""
    check_bits(captured().program, outcome(layout), outcome(f"{layout},offload=all{place}"))


@pytest.mark.parametrize("name", CNNS)
def test_models_that_are_not_folded_give_the_same_bits(name: str) -> None:
    made = zoo_step(name, torch.float64)
    found = capture(made.step, made.model, made.optimizer, made.args)
    known = found.inputs() | found.host_values() | found.bind(*made.args)
    given = [known[port.name] for port in found.program.inputs]
    plain, moved = (partition(found.program, line) for line in ("", "offload=all"))
    assert moved_bytes(moved)["activations"]
    check_bits(found.program, run_plan(plain, given), run_plan(moved, given))


def moved_bytes(plan: Plan) -> dict[str, int]:
    """What is fetched in a step, by the kind of value; of staged plans by stage 0."""
    main = plan.local.main
    roles = {v.id: p.role for p, v in zip(plan.local.inputs, main.inputs, strict=True)}
    stored = {op.outputs[0].id: op.inputs[0].id for op in main.ops if op.name == STORE}
    phases = {v.id: op.site.phase for op in main.ops for v in op.outputs}
    total = dict.fromkeys(KINDS, 0)
    for op in main.ops:
        if op.name == FETCH:
            (value,) = op.inputs
            role = roles.get(value.id)
            kind = {"state": "optimizer", "param": "parameters"}.get(role or "")
            if kind is None:
                made = phases[stored[value.id]]
                kind = {"forward": "activations", "backward": "gradients"}[made]
            total[kind] += op.outputs[0].type.size_bytes
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_asked_for_is_moved(kind: str) -> None:
    moved = moved_bytes(planned(f"offload={kind}"))
    assert {name for name, size in moved.items() if size} == {kind}


UNCLIPPED = ("", "micro=2", "dp=3", "zero1=2", "fsdp=2,micro=2", "pp=2,micro=2", "pp=1/dp=2")


@pytest.mark.slow
@pytest.mark.parametrize("layout", UNCLIPPED)
def test_updates_amid_backward_give_the_same_bits(layout: str) -> None:
    line = f"{layout},offload=all" if layout else "offload=all"
    program = captured(clipped=False).program
    check_bits(program, outcome(layout, clipped=False), outcome(line, clipped=False))


def test_a_weight_is_updated_once_its_gradient_is_final() -> None:
    """Without clipping behind the backward of its layer; with it, behind all of backward."""

    def first_update(plan: Plan, weight: str) -> int:
        (at,) = (i for i, port in enumerate(plan.program.inputs) if port.name == weight)
        out = plan.local.main.outputs[plan.program.updates.index(at)]
        made = [i for i, op in enumerate(plan.local.main.ops) if out in op.outputs]
        return made[0]

    for clipped in (False, True):
        plan = planned("offload=optimizer", clipped=clipped)
        ops = plan.local.main.ops
        last = max(at for at, op in enumerate(ops) if op.site.phase == "backward")
        assert (first_update(plan, "lm_head.weight") < last) is not clipped
        assert (first_update(plan, "blocks.1.attention_norm.weight") < last) is not clipped
        assert first_update(plan, "token_embedding.weight") > last


def test_what_is_sent_to_other_stages_waits_for_no_update() -> None:
    for program in planned("pp=2,micro=2,offload=optimizer", clipped=False).programs:
        sent = [at for at, op in enumerate(program.main.ops) if op.name == SEND]
        stored = [at for at, op in enumerate(program.main.ops) if op.name == STORE]
        assert max(sent) < min(stored)


@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("kinds", ["optimizer", "parameters"])
def test_fetches_begin_as_early_as_memory_allows(kinds: str, *, clipped: bool) -> None:
    """Each at the start, behind another one, or where one op earlier would take more than the
    peak."""
    plan = planned(f"offload={kinds}", clipped=clipped)
    uses = [plan.memory(in_place=way) for way in (False, True)]
    lengths = {block.name: len(block.ops) for block in plan.local.blocks}
    first, used = 0, [list[int](), list[int]()]
    ops = plan.local.main.ops
    for op in ops:
        last = first + (lengths[op.block] if op.name == CALL else 1)
        for each, use in zip(used, uses, strict=True):
            each.append(max(use.fullest.timeline[first:last]))
        first = last
    fetches = [at for at, op in enumerate(ops) if op.name == FETCH]
    early = 0
    for at in fetches:
        before = next((i for i in range(at - 1, -1, -1) if ops[i].name not in (FETCH, WAIT)), None)
        size = ops[at].outputs[0].type.size_bytes
        full = before is not None and any(
            each[before] + size > use.peak_bytes for each, use in zip(used, uses, strict=True)
        )
        assert before is None or full or ops[at - 1].name == FETCH, ops[at]
        reader = next(i for i in range(at, len(ops)) if ops[at].outputs[0] in ops[i].inputs)
        early += sum(op.name not in (FETCH, WAIT) for op in ops[at:reader]) > 20
    assert early > len(fetches) / 4


def test_memory_falls_by_what_is_elsewhere() -> None:
    plain = memory(planned("").local)
    moved = memory(planned("offload=optimizer").local)
    assert plain.peak_bytes - moved.peak_bytes == moved.away["host"]
    all_ = memory(planned("recompute=full,offload=all").local)
    assert all_.peak_bytes < 0.6 * memory(planned("recompute=full").local).peak_bytes
    assert all_.away["host"] > plain.parts["parameters"] + plain.parts["optimizer state"] - 40e3
    assert all_.timeline[0] < plain.timeline[0] / 10


def test_weights_are_fetched_before_the_call_before_the_one_that_reads_them() -> None:
    main = planned("offload=parameters", "llama-tiny").local.main
    calls = [at for at, op in enumerate(main.ops) if op.name == CALL]
    forward = [at for at in calls if main.ops[at].site.phase == "forward"]
    fetched = {op.outputs[0].id: at for at, op in enumerate(main.ops) if op.name == FETCH}
    assert len(forward) == 4
    for before, at in pairwise(forward):
        begun = [fetched[v.id] for v in main.ops[at].inputs if v.id in fetched]
        assert begun
        assert all(begun_at < before for begun_at in begun)


def test_what_is_stored_is_waited_for_before_its_memory_is_used_again() -> None:
    for line in ("offload=all", "micro=2,offload=all"):
        ops = planned(line).local.main.ops
        waited = {op.inputs[1].id: at for at, op in enumerate(ops) if op.name == WAIT}
        stores = {op.outputs[0].id: at for at, op in enumerate(ops) if op.name == STORE}
        assert waited.keys() == stores.keys()
        for at, op in enumerate(ops):
            if op.name == FETCH and op.inputs[0].id in waited:
                assert stores[op.inputs[0].id] < waited[op.inputs[0].id] < at


def test_the_plan_says_where_its_values_live() -> None:
    plan = planned("fsdp=2,offload=optimizer")
    assert plan_from_json(plan_to_json(plan)) == plan
    name = "optimizer.exp_avg[lm_head.weight]"
    assert f"{name}: f32[256, 64] [fsdp, -] in host" in plan.explain(name)
    assert "in host" not in plan.explain("lm_head.weight")
    assert "place.fetch(" in str(plan)


def test_slices_of_one_tensor_stay_on_the_chip() -> None:
    """Stored by itself a slice would come back with other strides; the halves here keep theirs."""
    b = Builder()
    x, w = b.input("x", "arg", (32, 64)), b.input("w", "param", (64, 64))
    both = b.op("aten.mm", x, w)
    left, right = (b.op("aten.slice.Tensor", both, 1, at, at + 32) for at in (0, 32))
    whole = b.op("aten.mm", x, w)
    middle = whole
    for i in range(6):
        b.site = replace(b.site, module=f"layers.{i}")
        middle = b.op("aten.relu", middle)
    b.phase("backward")
    b.result(b.op("aten.mul.Tensor", left, right))
    b.result(b.op("aten.mul.Tensor", whole, middle))
    plan = partition(b.build(), "offload=activations")
    stored = [op.inputs[0] for op in plan.local.main.ops if op.name == STORE]
    assert stored == [whole]


def test_nothing_but_a_fetch_reads_what_lives_elsewhere() -> None:
    local = planned("offload=optimizer").local
    away = next(op.inputs[0] for op in local.main.ops if op.name == FETCH)
    bad = Op(name="aten.relu", args=(away,), outputs=(Value(10**6, away.type),))
    main = replace(local.main, ops=(*local.main.ops, bad))
    with pytest.raises(VerifyError, match=r"lies in the place .host. and is read by aten\.relu"):
        verify(replace(local, main=main))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("offload=moments", "unknown offload=moments"),
        ("offload=", "expected offload=KIND"),
        ("offload", "expected NAME=SIZE"),
        ("offload=all@disk", "unknown place 'disk'"),
        ("offload=optimizer+", "expected offload=KIND"),
    ],
)
def test_what_is_wrong_with_a_line(line: str, text: str) -> None:
    with pytest.raises(LayoutError, match=text):
        parse_line(line)


def test_a_line_keeps_what_is_offloaded() -> None:
    line = parse_line("offload=activations+optimizer@peers,dp=2")
    assert str(line) == "dp=2,offload=optimizer+activations@peers"
    assert str(parse_line("offload=optimizer+parameters+gradients+activations")) == "offload=all"


def test_one_chip_has_no_peer() -> None:
    with pytest.raises(LayoutError, match="needs the memory of another chip, there is one chip"):
        partition(captured().program, "offload=all@peers")


def test_what_recompute_alone_cannot_fit_is_offloaded_least_moved_first() -> None:
    program = captured().program
    alone = (planned(f"recompute={mode}") for mode in (*LIMITS, "full"))
    again = min(plan.memory(in_place=True).peak_bytes for plan in alone)
    fits = partition_within(program, "", again - 1)
    assert fits.layout == "recompute=full,offload=optimizer"
    more = "recompute=full,offload=optimizer+parameters+gradients"
    least = planned(more).memory(in_place=True).peak_bytes
    assert partition_within(program, "", least).layout == more
    assert partition_within(program, "recompute=none", again).layout.startswith(
        "recompute=none,off"
    )
    with pytest.raises(DoesNotFit, match=r"are allowed; most for temporaries .*, parameters"):
        partition_within(program, "", least - 1)
    with pytest.raises(DoesNotFit, match="gpt-tiny needs"):
        partition_within(program, "offload=optimizer", least)
