import re
from dataclasses import replace

import pytest

from report.laid import gpt_plan
from report.test_page import own_text
from supernode.report import explanation
from supernode.report.layout_page import MAX_CUTS, axis_colours, layout_page, traffic_figure

EXPLAINED = explanation(gpt_plan("fsdp=2,tp=2,sp"))


def test_a_page_needs_no_network_and_is_the_same_again() -> None:
    html = layout_page(EXPLAINED)
    assert html == layout_page(EXPLAINED)
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)=", html)
    assert len(own_text(html)) < 100_000 < len(html)


def test_each_value_has_a_strip_cut_by_the_axes_that_split_it() -> None:
    html = own_text(layout_page(EXPLAINED))
    (row,) = re.findall(r'<div class="row"[^>]*><span class="name">lm_head\.weight.*?</div>', html)
    tp, fsdp = axis_colours(EXPLAINED)["tp"], axis_colours(EXPLAINED)["fsdp"]
    assert tp != fsdp
    assert re.search(rf"{tp}.*<b>256</b>.*{fsdp}.*<b>64</b>", row)
    assert "f32 128 × 32" in row
    shown = [row for row in EXPLAINED.stored if row.whole.shape and row.role != "state"]
    strips = len(shown) + len(EXPLAINED.activations)
    assert html.count('<span class="strip">') == strips
    assert '<span class="sum">sum(tp)</span>' in html


def test_stages_and_microbatches_have_strips() -> None:
    html = own_text(layout_page(explanation(gpt_plan("dp=2,micro=2"))))
    assert "micro = 2 parts, one after another" in html
    assert "f32 2 × 32 × 256" in html
    html = own_text(layout_page(explanation(gpt_plan("pp=1/tp=2,micro=2"))))
    assert "forward ops of each module make of a microbatch;" in html
    assert re.search(r"blocks\.\*\.mlp\.up <em>× 2</em>.*pp@0", html)
    assert re.search(r"<em> <em>× 2</em></em>.*pp@1.*f32 4 × 32 × 128", html)


def test_state_has_strips_where_it_lies_otherwise() -> None:
    assert "<h2>Optimizer state</h2>" not in layout_page(EXPLAINED)
    html = own_text(layout_page(explanation(gpt_plan("zero1=4"))))
    assert "<h2>Optimizer state</h2>" in html
    assert "optimizer.*[lm_head.weight]" in html


def test_a_dim_in_many_pieces_is_drawn_in_few() -> None:
    row = next(row for row in EXPLAINED.stored if row.name == "lm_head.weight")
    many = replace(row, piece=replace(row.piece, shape=(1, 64)))
    html = layout_page(replace(EXPLAINED, stored=(many,), activations=()))
    assert f"{100 / MAX_CUTS:.3f}%" in html


def test_the_bars_hold_what_is_sent() -> None:
    for bar in traffic_figure(EXPLAINED).data:
        total = sum(row.sent_bytes for row in EXPLAINED.totals if row.axis == bar.name)
        assert sum(bar.x) == pytest.approx(total)
        assert len(set(bar.y)) == len(bar.y)


def test_names_are_escaped() -> None:
    row = replace(EXPLAINED.stored[0], name="<b>&")
    html = own_text(layout_page(replace(EXPLAINED, program="<i>", stored=(row,))))
    assert "&lt;b&gt;&amp;" in html
    assert "<title>&lt;i&gt;, laid out" in html


def test_one_chip_sends_nothing_and_has_a_page() -> None:
    html = own_text(layout_page(explanation(gpt_plan(""))))
    assert 'id="traffic"' not in html
    assert "one chip" in html
