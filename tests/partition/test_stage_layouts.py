"""Stages of different layouts: the one-chip result, and each byte that crosses sent once."""

from collections import Counter
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from emulate import run_plan, run_program
from supernode.capture import Captured, capture
from supernode.errors import LayoutError
from supernode.ir import RECEIVE, HostType
from supernode.machine import load_machine
from supernode.models import recipe
from supernode.partition import parse_line, partition
from supernode.plan import Plan, plan_from_json, plan_to_json
from supernode.run.engine.letters import letters_of
from supernode.simulate import simulate
from tied import tied
from zoo import ZooStep

SCHEMES = ("dp", "fsdp", "tp")
LINES = (
    *(f"pp=1/{each}=2" for each in SCHEMES),
    *(f"pp={each}=2/1,micro=2" for each in SCHEMES),
    *(f"pp={a}=2/{b}=2,micro=2" for a in SCHEMES for b in SCHEMES if a != b),
    "pp=tp=2+sp/dp=2,vp=2,micro=2",
    "pp=1/tp=2,micro=3",
    "pp=fsdp=2/tp=2,micro=2,schedule=zb",
    "pp=1/dp=2+tp=2/tp=2,micro=2,schedule=gpipe,recompute=full",
    "pp=cp=2/tp=2,micro=2",
    "pp=1/dp=3",
    "pp=dp=3/zero1=3",
    "pp=fsdp=2/cp=3,micro=2",
    "pp=tp=2/dp=2,offload=all@peers",
)
STEPS = 3


@lru_cache
def captured() -> Captured:
    job = recipe("llama-tiny").build(batch=8)
    return capture(job.step, job.model, job.optimizer, job.inputs, name="llama-tiny")


@lru_cache
def plan(line: str) -> Plan:
    return partition(captured().program, line)


def check(made: ZooStep, line: str) -> None:
    """Three steps of all chips side by side against those of one chip."""
    found = capture(made.step, made.model, made.optimizer, made.args)
    known = found.inputs() | found.host_values() | found.bind(*made.args)
    program = found.program
    want = [known[port.name] for port in program.inputs]
    got, many = list(want), partition(program, line)
    for _ in range(STEPS):
        one, other = run_program(program, want), run_plan(many, got)
        for port, a, b in zip(program.outputs, one, other, strict=True):
            if isinstance(a, Tensor):
                torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8, msg=port.name)
        for i, source in enumerate(program.updates):
            if source is not None:
                want[source], got[source] = one[i], other[i]


@pytest.mark.parametrize("line", LINES)
def test_three_steps_are_those_of_one_chip(line: str) -> None:
    check(tied(), line)


@pytest.mark.parametrize("line", LINES)
def test_each_byte_that_crosses_is_sent_to_a_chip_once(line: str) -> None:
    many = plan(line) if "micro=3" not in line else plan("pp=1/tp=2")
    came: Counter[int] = Counter()
    for letter in letters_of(many, 0):
        came[letter.target] += torch.Size(letter.shape).numel() * letter.dtype.itemsize
        stages = [many.mesh.coordinates(rank)["pp"] for rank in (letter.source, letter.target)]
        assert stages[0] != stages[1]
    for rank in range(many.mesh.size):
        got = [op.outputs[0] for op in many.local_of(rank).main.ops if op.name == RECEIVE]
        assert came[rank] == sum(value.type.size_bytes for value in got)


def test_between_microbatches_gradients_lie_in_pieces_where_weights_do() -> None:
    alike, apart = (
        plan(line).memory(in_place=True).chips[0]
        for line in ("pp=2,fsdp=2,micro=4", "pp=fsdp=2/tp=2,micro=4")
    )
    assert apart.peak_bytes < 1.01 * alike.peak_bytes


def test_copies_take_turns() -> None:
    sources = Counter(
        letter.source for letter in letters_of(plan("pp=tp=2/dp=2"), 0) if len(letter.shape) == 3
    )
    assert sources[0] == sources[1]


def test_a_plan_survives_json_and_says_where_values_are() -> None:
    many = plan("pp=1/tp=2")
    assert plan_from_json(plan_to_json(many)) == many
    assert str(many.mesh) == "pp=one chip / tp=2"
    assert many.explain("lm_head.weight").splitlines()[0] == (
        "lm_head.weight: f32[256, 64] [tp, -] pp@1, [128, 64] on each of 2 chips"
    )
    for i, value in enumerate(many.program.main.inputs):
        if not isinstance(value.type, HostType):
            layout = many.inputs[i]
            assert layout is not None
            shapes = [p.main.inputs[i].tensor.shape for p in many.programs]
            ranks = (0, 1)
            want = [layout.local_shape(value.tensor.shape, many.mesh, rank) for rank in ranks]
            assert shapes == want


def test_a_step_is_simulated() -> None:
    machine = load_machine("hgx-h100")
    found = [simulate(plan(line), machine) for line in ("pp=2,micro=2", "pp=1/dp=2,micro=2")]
    assert [each.chips for each in found] == [2, 3]
    alike, wider = found
    assert 0.5 * alike.step_s < wider.step_s < 1.5 * alike.step_s


@pytest.mark.parametrize(
    ("line", "chips", "text"),
    [
        ("pp=tp=2/dp=2,tp=2", None, "tp stands outside of the stages"),
        ("pp=1/tp=2,sp", None, "sp stands outside of the stages"),
        ("pp=1/dp=2", 4, r"the stages have 1 \+ 2 = 3 chips, there are 4 chips"),
        ("pp=1/pd=2", None, "unknown axis 'pd'"),
        ("pp=1/pp=2", None, "pp is not for one stage"),
        ("pp=1/micro=2", None, "micro is not for one stage"),
        ("pp=1/2", None, "expected NAME=SIZE or 1 for a stage, got '2'"),
        ("pp=1//dp=2", None, "expected NAME=SIZE or 1 for a stage, got ''"),
        ("pp=tp=2", None, "pp has one stage"),
        ("pp=1/dp=2,cut=a/b", None, "cut names 2 modules"),
    ],
)
def test_what_is_wrong_with_stages(line: str, chips: int | None, text: str) -> None:
    with pytest.raises(LayoutError, match=text) as error:
        parse_line(line, chips)
    assert line in str(error.value)


def test_equal_stages_are_written_once() -> None:
    assert parse_line("pp=dp=2/dp=2,micro=2") == parse_line("pp=2,dp=2,micro=2")
    assert str(parse_line("pp=1/tp=2+sp,micro=2")) == "pp=1/tp=2+sp,micro=2,schedule=1f1b"


def test_a_chip_without_a_part_of_a_microbatch_is_refused() -> None:
    with pytest.raises(
        LayoutError, match=r"dp\*micro=16 leaves microbatches without a part"
    ) as error:
        plan("pp=1/dp=2,micro=8")
    assert "dim 0 of tokens (i64[8, 32])" in str(error.value)


@pytest.mark.parametrize("line", ["pp=1/dp=2", "pp=dp=3/zero1=3"])
def test_peers_are_chips_of_stages_that_mirror_each_other(line: str) -> None:
    with pytest.raises(LayoutError, match="keep nothing for each other"):
        plan(f"{line},offload=all@peers")


def test_chips_with_other_pieces_are_kinds_of_their_stage() -> None:
    many = plan("pp=tp=2/dp=3")
    assert many.inside == ((), (("dp", (2,)),))
    assert many.kinds() == (0, 2, 4)
    assert [many.alike(rank) for rank in range(5)] == [0, 0, 2, 2, 4]
    assert [many.largest(rank) for rank in range(5)] == [many.local_of(r) for r in (0, 0, 2, 2, 2)]
    assert [use.parts["letters"] for use in many.memory().chips.values()][1:] == sorted(
        (use.parts["letters"] for use in list(many.memory().chips.values())[1:]), reverse=True
    )
    assert plan_from_json(plan_to_json(many)) == many
