import pytest

from accuracy.rows import judged, judgement
from supernode.accuracy.document import document
from supernode.accuracy.page import page, plot
from supernode.accuracy.score import by_regime, changes, ranking, score, without_each_source


def test_errors_are_predicted_over_measured_minus_one():
    rows = [judged("a", 1.0, 1.1), judged("b", 1.0, 0.7), judged("c", 2.0, 2.0)]
    found = score("x", rows, skipped=2)
    assert (found.rows, found.skipped) == (5, 2)
    assert found.median_abs_error == pytest.approx(0.1)
    assert found.p90_abs_error == pytest.approx(0.3)
    assert found.bias == pytest.approx(0.0)
    assert found.covered == pytest.approx(2 / 3)  # 0.7 x 1.2 does not reach 1
    assert found.worst == "b (-30%)"


def test_errors_of_unlike_sign_cancel():
    assert score("x", [judged("a", 1.0, 1.2), judged("b", 1.0, 0.9)], 0).left == pytest.approx(
        1 / 3
    )
    assert score("x", [judged("a", 1.0, 1.0)], 0).left is None


def test_without_rows_there_is_no_error():
    found = score("x", [], skipped=3)
    assert (found.rows, found.median_abs_error, found.covered) == (3, None, None)


def test_a_repeated_row_is_not_scored():
    rows = judgement(judged("a", 1.0, 2.0), judged("b", 1.0, 1.0), repeated={"a": "b"})
    assert by_regime(rows)[0].rows == 1
    assert by_regime(rows)[0].median_abs_error == 0


def test_a_source_left_out_changes_the_median_it_made():
    rows = judgement(
        judged("a", 1.0, 1.5, source="one"),
        judged("b", 1.0, 1.5, source="one"),
        judged("c", 1.0, 1.1, source="two"),
    )
    left = dict(without_each_source(rows, "training-dense"))
    assert left["one"] == pytest.approx(0.1)
    assert left["two"] == pytest.approx(0.5)


def test_ranking_counts_pairs_and_what_the_pick_costs():
    rows = [
        judged("a", 1.0, 1.2),  # the measured best
        judged("b", 1.25, 1.1),  # the predicted best
        judged("c", 2.0, 3.0),
    ]
    found = ranking(rows)
    assert (found.pairs, found.groups) == (3, 1)
    assert found.ordered == pytest.approx(2 / 3)
    assert found.mean_regret == pytest.approx(1 - 1 / 1.25)


def test_ranking_is_by_work_a_second():
    rows = [judged("a", 1.0, 1.0, work=1), judged("b", 1.5, 1.4, work=2)]
    assert ranking(rows).ordered == 1
    assert ranking(rows).mean_regret == 0


def test_a_change_is_judged_by_its_sign_and_its_size():
    rows = [
        judged("a", 1.0, 1.0, knobs={"tp": "1", "recompute": "none"}),
        judged("b", 1.2, 1.3, knobs={"tp": "1", "recompute": "full"}),
        judged("c", 1.1, 0.9, knobs={"tp": "2", "recompute": "none"}),
    ]
    found = {each.knob: each for each in changes(rows)}
    assert found["recompute"].same_sign == 1
    assert found["recompute"].median_size_error == pytest.approx(0.5)
    assert found["tp"].same_sign == 0
    assert {knob: each.pairs for knob, each in found.items()} == {"recompute": 1, "tp": 1}


def test_the_document_has_the_promised_keys_for_every_regime():
    made = document(judgement(judged("a", 1.0, 1.1)))
    assert [each["regime"] for each in made["regimes"]] == [
        "training-dense",
        "training-moe",
        "prefill",
        "decode",
        "collectives",
        "operators",
    ]
    wanted = {"rows", "skipped", "median_abs_error", "p90_abs_error", "bias", "covered"}
    assert all(wanted <= each.keys() for each in made["regimes"])
    (only,) = made["rows"]
    assert only["error"] == pytest.approx(0.1)
    assert only["covered"] is True


def test_the_page_and_its_plot_show_every_scored_row():
    rows = judgement(judged("a", 1.0, 1.1), judged("b", 10.0, 9.0, regime="decode"))
    text = page(rows, "2026-11-27")
    assert "| training-dense | 1 | 0 | 10.0% | 10.0% | +10.0% | 100.0% | a (+10%) |" in text
    assert plot(rows).count("<circle") == 2
    assert page(judgement(), "2026-11-27") != ""
    assert plot(judgement()).endswith("</svg>\n")
