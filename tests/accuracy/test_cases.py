"""Rows as what a user would type: layouts, machines, what was measured, and why a row is none."""

import pytest

from accuracy.rows import row
from supernode.accuracy import load_truth
from supernode.accuracy.case import Access, Case, Collective, NotExpressed, Serving, Step
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


def test_a_share_of_blocks_that_run_again_is_so_much_of_two_steps():
    (held, none), (again, full) = training_case(row("fms-08")).parts
    assert isinstance(none, Step)
    assert isinstance(full, Step)
    assert (none.layout, full.layout) == ("fsdp=96,recompute=none", "fsdp=96,recompute=full")
    assert again == pytest.approx(3 * (0.47 / 0.38 - 1))
    assert held + again == pytest.approx(1)
    assert step_of(training_case(row("fms-05"))).layout == "fsdp=128,recompute=full"


def test_a_package_of_two_dies_is_two_chips_of_a_layout():
    case = serving_case(row("cm-t3-1"))
    step = step_of(case)
    assert (case.machine, step.chips) == ("cloudmatrix384@die", 32)
    assert step.layout == "ep=32,micro=2,turns"
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
    step = step_of(case)
    assert step.ahead == 2  # one that is known, and one guessed
    assert step.layout == "ep=320,micro=2,turns"
    # 32 shared, 256 routed and 32 copies, each on a die of its own: a token goes to one more.
    assert (step.shape.experts, step.shape.topk, step.shape.shared_experts) == (320, 9, 0)


@pytest.mark.parametrize(
    ("id_", "layout", "once", "narrow"),
    [
        ("ds-prof-1", "ep=32,micro=2,turns", True, 0.5),
        ("sgl96-5", "ep=72,micro=2,turns", False, 0.5),
        ("cm-t3-1", "ep=32,micro=2,turns", False, 0.5),
    ],
)
def test_two_microbatches_take_turns_and_tokens_are_cast_before_they_are_sent(
    id_: str, layout: str, once: bool, narrow: float
):
    step = step_of(serving_case(row(id_)))
    assert (step.layout, step.terms.once, step.terms.narrow) == (layout, once, narrow)


@pytest.mark.parametrize(
    ("id_", "want", "measured_s"),
    [
        (
            "cm-t1-npu-npu-write-inter-lat",
            Access(place="peers", read=False, data_bytes=512, apart=16),
            2.1e-6,
        ),
        (
            "cm-t1-npu-cpu-read-intra-bw",
            Access(place="host", read=True, data_bytes=2**30, apart=15),
            2**30 / 151e9,
        ),
        ("scl-p2p-die", Access(place="peers", read=True, data_bytes=2**30, apart=1), 2**30 / 210e9),
        (
            "h100roce-16-on",
            Collective(kind="all_reduce", data_bytes=2**30, chips=16),
            2 * 15 / 16 * 2**30 / 430e9,
        ),
    ],
)
def test_a_rate_is_that_of_large_messages(
    id_: str, want: Access | Collective, measured_s: float
) -> None:
    case = collective_case(row(id_))
    assert case.parts == ((1.0, want),)
    assert case.measured_s == pytest.approx(measured_s)


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


def served(case: Case) -> Serving:
    ((_, spec),) = case.parts
    assert isinstance(spec, Serving)
    return spec


def test_newcomers_are_prefilled_but_not_where_others_do_it():
    alone = next(each for each in load_truth() if "one worker" in each.text("note"))
    spec = served(serving_case(alone))
    assert spec.prompts is not None
    assert (spec.decode.phase, spec.prompts.phase) == ("decode", "prefill")
    assert (spec.decode.batch, spec.prompts.batch, spec.output) == (1, 1, 1000)
    assert spec.wait_s == alone.number("ttft_ms") / 1e3  # type: ignore[operator]
    apart = served(serving_case(row("dsr1_gb200_sglang_fp4_disagg_1024x1024_c8_cfg486")))
    assert apart.prompts is None
    assert apart.decode.batch == 4  # of eight requests, over two workers


@pytest.mark.parametrize(
    ("id_", "mixed", "together", "batch", "cache", "length"),
    [
        # Lengths drawn from 0.8 to 1 of what is named: newcomers come one by one.
        ("dsr1_b200_sglang_fp4_agg_1024x8192_c16_cfg88", False, False, 1, "fp8", 921.6),
        ("minimaxm2_5_h200_vllm_fp8_agg_1024x8192_c16_cfg637", True, False, 1, "", 921.6),
        ("dsr1_h200_trtllm_fp8_agg_8192x1024_c64_cfg83", True, False, 1, "fp8", 7372.8),
        # All alike: those of a pass of 8,192 tokens come together.
        (
            "qwen_qwen3_32b_qwen_qwen3_32b_h100_sxm_sglang_agg_4096x512_c64_tp2_epnone_52",
            *(False, True, 2, "", 4096),
        ),
    ],
)
def test_how_a_stack_takes_in_newcomers(
    id_: str, mixed: bool, together: bool, batch: int, cache: str, length: float
):
    found = next(each for each in load_truth() if each.id.startswith(id_.rpartition("_")[0]))
    spec = served(serving_case(found))
    assert spec.prompts is not None
    assert (spec.mixed, spec.together, spec.prompts.batch) == (mixed, together, batch)
    assert spec.prompts.sequence == round(length)
    assert spec.decode.cache == cache


def test_heads_of_keys_are_copied_to_as_many_chips_as_split_the_heads():
    found = next(each for each in load_truth() if "qwen3_235b" in each.id and "_tp8_" in each.id)
    assert served(serving_case(found)).decode.shape.kv_heads == 8


@pytest.mark.parametrize(
    ("id_", "precision"),
    [
        ("dsr1_h200_trtllm_fp8_agg_8192x1024_c64_cfg83", "fp8-cast"),
        ("dsr1_gb200_sglang_fp4_disagg_1024x1024_c8_cfg486", "fp4-mlp"),
        ("minimaxm2_5_b200_vllm_fp4_agg_1024x1024_c32_cfg704", "fp4-cast"),
        ("2026_03_25_kimi_k2_5_b200_sxm_vllm_int4_agg_8192x1024_c16_tp8_0", "int4-experts"),
        ("2026_04_06_llama_3_1_70b_b200_sxm_trtllm_fp4_agg_1024x1024_c8_tp4", "fp4"),
        ("2026_04_06_gpt_oss_120b_b200_sxm_vllm_fp4_agg_1024x1024_c16_tp1", "mxfp4-mxfp8"),
    ],
)
def test_a_precision_is_of_the_layers_that_the_weights_have_it_in(id_: str, precision: str):
    found = next(each for each in load_truth() if each.id.startswith(id_))
    assert served(serving_case(found)).decode.precision == precision


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


@pytest.mark.parametrize(
    ("id_", "waits"),
    [
        ("qwen_qwen3_32b_qwen_qwen3_32b_h100_sxm_vllm_agg_4096x512_c16", True),  # 0.12
        ("2026_04_06_llama_3_1_70b_h100_sxm_vllm_fp8_agg_1024x1024_c4", True),  # of October 2025
        ("minimaxm2_5_h200_vllm_fp8_agg_1024x8192_c16", False),  # 0.18
        ("2026_04_06_gpt_oss_120b_h100_sxm_vllm_fp4_agg_8192x1024_c512", False),  # 0.11, as told
        ("qwen_qwen3_32b_qwen_qwen3_32b_h100_sxm_sglang_agg_4096x512_c64", False),
    ],
)
def test_releases_that_schedule_a_pass_after_the_last_one(id_: str, waits: bool):
    found = next(each for each in load_truth() if each.id.startswith(id_))
    assert (served(serving_case(found)).host_s > 0) == waits


def test_a_router_that_nothing_balances_fills_one_chip_more_than_others():
    assert step_of(serving_case(row("ds-prof-1"))).terms.imbalance == 1
    assert step_of(serving_case(row("sgl96-3"))).terms.imbalance == 1.4
    assert step_of(serving_case(row("cm-t3-1"))).terms.imbalance == 1.4
