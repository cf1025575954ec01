"""Rows as what a user would type: layouts, machines, what was measured, and why a row is none."""

import pytest

from accuracy.rows import row
from supernode.accuracy import load_truth
from supernode.accuracy.case import Case, Collective, NotExpressed, Step
from supernode.accuracy.cases import cases, repeats
from supernode.accuracy.links import collective_case, operator_case
from supernode.accuracy.serving import Worker, serving_case, worker
from supernode.accuracy.training import training_case


def step_of(case: Case) -> Step:
    (_, spec), *_ = case.parts
    assert isinstance(spec, Step)
    return spec


@pytest.mark.parametrize(
    ("id_", "layout", "machine"),
    [
        ("sc21-03", "dp=32,tp=4,micro=16,recompute=full", "16xhgx-a100"),
        ("kor-02", "tp=8,sp,recompute=selective", "hgx-a100"),
        ("kor-04", "pp=8,vp=3,tp=8,sp,micro=64,recompute=selective", "8xhgx-a100"),
        ("lf-010", "fsdp=512", "64xhgx-h100"),
        ("fms-01", "dp=16,fsdp=8", "16xhgx-a100"),
        ("mcore-03", "zero1=48,tp=4,sp,micro=4", "24xhgx-h100"),
        ("mlmx-01", "zero1=4,cp=2,micro=32", "hgx-h100"),
        ("mb-008", "ep=8,micro=16", "gb200-nvl72"),
        ("mb-043", "pp=8,zero1=4,ep=8,micro=64", "32xhgx-b300"),
    ],
)
def test_a_training_run_in_its_published_layout(id_: str, layout: str, machine: str):
    case = training_case(row(id_))
    assert step_of(case).layout == layout
    assert case.machine == machine


def test_a_package_of_two_dies_is_two_chips_of_a_layout():
    case = serving_case(row("cm-t3-1"))
    step = step_of(case)
    assert (case.machine, step.chips, step.layout) == ("cloudmatrix384@die", 32, "ep=32")
    assert (step.batch, step.sequence, step.precision) == (64, 4096, "int8")
    assert case.measured_s == pytest.approx(16_384 / 5655)


def test_a_step_time_follows_from_what_is_published():
    assert training_case(row("kor-01")).measured_s == 1.42
    rounded = training_case(row("mb-008"))  # from FLOP: its tokens are rounded
    assert rounded.measured_s == pytest.approx(512 * 4096 * 23.01 / (1e3 * 923 * 8))


def test_the_network_of_a_row_is_its_own():
    assert training_case(row("kor-03")).network_bytes_per_s == 25e9
    assert training_case(row("fms-01")).network_bytes_per_s == 6.25e9


def test_guessed_tokens_that_are_taken_lengthen_an_iteration():
    case = serving_case(row("cm-t5-3"))
    assert case.measured_s == pytest.approx(49.4e-3 * 1.7)
    assert step_of(case).ahead == 1 + ("MTP on" in row("cm-t5-3").text("note"))


@pytest.mark.parametrize(
    ("text", "want", "layout"),
    [
        ("TP2", Worker(count=1, tp=2, dp=1, moe_tp=1, ep=1), "tp=2"),
        ("TP8 MoE-TP8 EP1", Worker(count=1, tp=8, dp=1, moe_tp=8, ep=1), "tp=8"),
        (
            "4 x (TP1 attention-DP8 MoE-TP1 EP8)",
            Worker(count=4, tp=1, dp=8, moe_tp=1, ep=8),
            "ep=8",
        ),
        ("TP8 MoE-TP1 EP8", Worker(count=1, tp=8, dp=1, moe_tp=1, ep=8), "tp=8,ep=tp"),
    ],
)
def test_workers_of_a_served_model(text: str, want: Worker, layout: str):
    assert worker(text) == want
    assert want.layout(experts=True) == layout


def test_experts_over_chips_that_attention_splits_otherwise_are_no_layout():
    with pytest.raises(NotExpressed, match="no axes of a layout split both so"):
        worker("TP1 attention-DP32 MoE-TP32 EP1").layout(experts=True)


def test_newcomers_are_prefilled_between_iterations_but_not_where_others_do_it():
    alone = next(each for each in load_truth() if "one worker" in each.text("note"))
    case = serving_case(alone)
    assert [spec.phase for _, spec in case.parts] == ["decode", "prefill"]
    assert case.parts[1][0] == pytest.approx(1 / 1000)  # one request, 1,000 tokens of output
    apart = serving_case(row("dsr1_gb200_sglang_fp4_disagg_1024x1024_c8_cfg486"))
    assert [spec.phase for _, spec in apart.parts] == ["decode"]
    assert step_of(apart).batch == 4  # of eight requests, over two workers


def test_a_collective_is_that_of_nccl_tests():
    case = collective_case(row("nccl-a100-all-reduce-2-2097152"))
    assert case.parts == ((1.0, Collective(kind="all_reduce", data_bytes=2097152.0, chips=2)),)
    assert case.measured_s == pytest.approx(47.6e-6)


def test_a_layer_is_part_of_a_step():
    case = operator_case(row("kor-layer-selective-recompute-and-sequence-parallel-bac"))
    (_, spec), *_ = case.parts
    assert spec.step.layout == "tp=8,sp,recompute=selective"
    assert (spec.half, case.measured_s) == ("backward", 13.1e-3)


def test_every_row_is_a_case_or_has_a_reason():
    rows = load_truth()
    made, skipped = cases(rows)
    assert len(made) + len(skipped) == len(rows)
    assert all(each.reason for each in skipped)
    assert len(made) > 540


def test_a_configuration_of_several_releases_is_scored_by_the_latest():
    rows = load_truth()
    made, _ = cases(rows)
    later = repeats(made, rows)
    assert later["mb-248"] == "mb-008"
    assert "mb-008" not in later
    releases = {each.id: each.noted("release") for each in rows}
    assert all(releases[old] <= releases[new] for old, new in later.items())
    assert not {id_ for id_ in later if not id_.startswith("mb-")}
