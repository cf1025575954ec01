"""A row is predicted by what the command line does, and one that can't be says why."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accuracy.rows import row
from supernode.accuracy import judge
from supernode.accuracy.case import Case, Collective, NotExpressed, Operator, Serving, Step
from supernode.accuracy.predict import Predictor, machine_for
from supernode.accuracy.truth import Row
from supernode.cli.main import call
from supernode.machine import Machine, load_machine
from supernode.models import recipe
from supernode.simulate import Terms, collective_time, experts_time
from supernode.trace import Span

SMALL = {"layers": 3, "hidden": 256, "heads": 4, "kv_heads": 2, "ffn": 512, "vocab": 1024}


def small_case(layout: str = "fsdp=8", precision: str = "bf16") -> Case:
    shape = recipe("llama3-8b").with_shape(SMALL).shape
    assert shape is not None
    step = Step(
        shape=shape,
        dtype="bfloat16",
        phase="train",
        batch=8,
        sequence=128,
        layout=layout,
        chips=8,
        precision=precision,
    )
    return Case(
        id="small",
        source="test",
        regime="training-dense",
        machine="hgx-h100",
        measured_s=1.0,
        parts=((1.0, step),),
    )


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_prediction_is_what_simulate_prints(
    precision: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    got = Predictor(tmp_path).predict(small_case(precision=precision))
    asked = "simulate llama3-8b --on hgx-h100 --layout fsdp=8 --batch 8 --sequence 128 --json"
    changes = [f"{name}={value}" for name, value in SMALL.items()]
    assert call([*asked.split(), "--precision", precision, "--set", *changes]) == 0
    want = json.loads(capsys.readouterr().out)
    assert got.time_s == want["step_s"]
    assert got.low_s < got.time_s < got.high_s
    again = Predictor(tmp_path).predict(small_case(precision=precision))  # from the kept Program
    assert again == got


def test_parts_add_up_as_often_as_they_happen():
    once = small_case()
    (_, step), *_ = once.parts
    twice = Case(
        id="twice",
        source="test",
        regime="decode",
        machine=once.machine,
        measured_s=1.0,
        parts=((1.0, step), (0.5, step)),
    )
    predictor = Predictor(None)
    assert predictor.predict(twice).time_s == pytest.approx(1.5 * predictor.predict(once).time_s)


def test_a_layout_that_no_plan_can_have_is_the_reason():
    with pytest.raises(NotExpressed, match="LayoutError: unknown axis 'xp'"):
        Predictor(None).predict(small_case(layout="xp=8"))


def test_a_collective_takes_the_time_that_a_step_would_wait_for_it():
    case = Case(
        id="c",
        source="test",
        regime="collectives",
        machine="hgx-h100",
        measured_s=1.0,
        parts=((1.0, Collective(kind="all_gather", data_bytes=2.0**20, chips=8)),),
    )
    machine = load_machine("hgx-h100")
    want = collective_time("all_gather", 2.0**20, machine=machine, stride=1, size=8)
    assert Predictor(None).predict(case).time_s == pytest.approx(want.time_s)


def routed(phase: str = "train", batch: int = 8, **terms: Any) -> tuple[Machine, list[Span]]:
    """A step of eight experts on eight chips, each token with two, and what it sends to experts."""
    (_, step), *_ = small_case("ep=8").parts
    sizes = SMALL | {"experts": 8, "topk": 2, "expert_ffn": 128}
    shape = recipe("llama3-8b").with_shape(sizes).shape
    assert isinstance(step, Step)
    assert shape is not None
    machine = load_machine("gb200-nvl72")
    step = replace(step, shape=shape, phase=phase, batch=batch, terms=Terms(copies=2, **terms))
    sim = Predictor(None).simulated(step, machine)
    return machine, [span for span in sim.trace.spans if span.name == "fabric.all_to_all_rows"]


def test_routed_rows_go_by_kernels_made_for_them():
    machine, spans = routed()
    rows_bytes = 8 * 128 // 8 * 2 * SMALL["hidden"] * 2
    want = experts_time(
        "dispatch", rows_bytes, copies=2, once=True, machine=machine, stride=1, size=8
    )
    assert {round(span.duration_s / want.time_s, 6) for span in spans} == {1.0}


def test_rows_sent_copy_by_copy_are_cast_on_the_way_there_alone():
    machine, spans = routed(phase="decode", batch=1024, once=False, narrow=0.5)
    rows_bytes = 1024 // 8 * 2 * SMALL["hidden"] * 2
    there, back = (
        experts_time(way, size, copies=2, once=False, machine=machine, stride=1, size=8).time_s
        for way, size in (("dispatch", rows_bytes / 2), ("combine", rows_bytes))
    )
    want = [there, back] * SMALL["layers"]
    assert [span.duration_s for span in spans] == pytest.approx(want)


def test_all_wait_for_the_chip_whose_experts_get_the_most_rows():
    machine, spans = routed(imbalance=1.5)
    rows_bytes = 8 * 128 // 8 * 2 * SMALL["hidden"] * 2
    want = experts_time(
        "dispatch", 1.5 * rows_bytes, copies=2, once=True, machine=machine, stride=1, size=8
    )
    assert {round(span.duration_s / want.time_s, 6) for span in spans} == {1.0}


def test_of_requests_that_wait_fewer_decode():
    (_, step), *_ = small_case("").parts
    assert isinstance(step, Step)
    decode = replace(step, phase="decode", batch=64, sequence=512, chips=1)
    predictor, machine = Predictor(None), load_machine("hgx-h100")
    all_s = predictor.simulated(decode, machine).step_s
    few_s = predictor.simulated(replace(decode, batch=32), machine).step_s
    times = [
        predictor.predict(replace(small_case(), parts=((1.0, spec),))).time_s
        for spec in (
            Serving(decode=decode, prompts=None, output=100),
            Serving(decode=decode, prompts=None, output=100, wait_s=100 * few_s),
        )
    ]
    assert times == [pytest.approx(all_s), pytest.approx(few_s, rel=0.02)]


def test_while_the_host_schedules_chips_wait():
    (_, step), *_ = small_case("").parts
    assert isinstance(step, Step)
    decode = replace(step, phase="decode", batch=64, sequence=512, chips=1)
    predictor = Predictor(None)
    at_once, after = (
        predictor.predict(replace(small_case(), parts=((1.0, spec),)))
        for spec in (
            Serving(decode=decode, prompts=None, output=100),
            Serving(decode=decode, prompts=None, output=100, host_s=1e-3),
        )
    )
    assert after.time_s - at_once.time_s == pytest.approx(0.064)
    assert after.causes_s["host"] - at_once.causes_s["host"] == pytest.approx(0.064)
    assert after.low_s < after.time_s < after.high_s


def test_an_op_is_measured_in_its_time_at_the_peak():
    sizes = (("groups", 4), ("M", 7168), ("N", 4096), ("K", 4096))
    operator = Operator(name="grouped-gemm", sizes=sizes, dtype="bf16")
    case = Case(
        id="g",
        source="test",
        regime="operators",
        machine="hgx-h100",
        measured_s=1.0,
        parts=((1.0, operator),),
    )
    assert 1.0 <= Predictor(None).predict(case).time_s < 2.0


def test_the_network_of_a_row_takes_the_place_of_the_machines():
    case = small_case()
    assert machine_for(case) == load_machine("hgx-h100")


def test_judging_predicts_each_row_once_for_one_state_of_the_code(tmp_path: Path):
    rows = [row("nccl-a100-all-reduce-8-1024"), row("cm-t1-npu-cpu-read-inter-lat"), row("mt-01")]
    said: list[str] = []
    found = judge(rows, processes=1, cache=tmp_path, say=said.append)
    assert [each.case.id for each in found.judged] == ["nccl-a100-all-reduce-8-1024"]
    assert [each.id for each in found.skipped] == ["cm-t1-npu-cpu-read-inter-lat", "mt-01"]
    assert said == [
        "0 of 1 rows predicted before",
        "1 of 1 rows predicted, about 0 min left",
    ]
    said.clear()
    assert judge(rows, processes=1, cache=tmp_path, say=said.append) == found
    assert said == ["1 of 1 rows predicted before"]


def test_a_regime_of_the_users_own_rows(tmp_path: Path):
    columns = dict(row("nccl-a100-all-reduce-8-1024").columns) | {"id": "mine", "chips": "4"}
    found = judge([Row(table="comm", columns=columns)], processes=1)
    assert found.judged[0].case.id == "mine"


def test_rows_that_are_not_reached_in_time_say_so():
    found = judge([row("lf-100")], processes=1, minutes=-1)
    assert [each.reason for each in found.skipped] == ["not reached in the time given"]
