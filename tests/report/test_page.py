import re
from dataclasses import replace

import pytest

from supernode.errors import InputError
from supernode.plan import Mesh
from supernode.report.figures import (
    MAX_BARS,
    comparison_figure,
    memory_figure,
    timeline_figure,
)
from supernode.report.page import page
from supernode.search import Change
from supernode.simulate import limits, simulate
from supernode.trace import MEMORY, Counter, Span, Trace
from tiny import layered, machine, plan

LOCAL = plan(layered(3, reduce_over="dp"), Mesh((("dp", 4),)))
SIM = simulate(LOCAL, machine(), tokens=100)
OTHER = simulate(LOCAL, machine(name="other", peak=1e13), tokens=100)


def own_text(html: str) -> str:
    """What the page holds besides plotly's own script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", html, count=1, flags=re.DOTALL)


def test_a_page_needs_no_network() -> None:
    html = page([SIM, OTHER])
    assert len(own_text(html)) < 100_000 < len(html)
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)=", html)


def test_a_page_shows_the_step_its_memory_and_the_machines() -> None:
    html = own_text(page([SIM, OTHER]))
    for name in ("timeline", "memory", "comparison", "roofline", "levels"):
        assert f'id="{name}"' in html
    assert 'id="comparison"' not in own_text(page([SIM]))
    assert "tiny on 2 machines" in html
    assert "tiny on The tiny machine" in own_text(page([SIM]))


def test_a_page_says_what_limits_the_step_where_it_was_asked() -> None:
    shares = limits(SIM, machine())
    change = Change(name="layout <tp=2>", step_s=SIM.step_s / 2, gain=0.5)
    html = own_text(page([SIM], shares, [change]))
    assert 'id="limits"' in html
    assert "<td>layout &lt;tp=2&gt;</td><td>50.0% less" in html
    assert 'id="limits"' not in own_text(page([SIM]))


def test_a_page_is_the_same_again() -> None:
    assert page([SIM, OTHER]) == page([SIM, OTHER])


def test_names_are_escaped() -> None:
    html = own_text(page([replace(SIM, program="<b>&")]))
    assert "<title>&lt;b&gt;&amp; on" in html


def test_a_page_of_what_does_not_fit_says_so_and_shows_no_timeline() -> None:
    html = own_text(page([replace(SIM, capacity_bytes=1e3, outside_bytes=2e9)]))
    assert "driver, collectives</td><td>2 GB" in html
    assert "allocator reserves" in html
    assert "does not fit" in html
    assert 'id="timeline"' not in html
    assert 'id="memory"' in html


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one simulation"):
        page([])


def test_the_timeline_shows_each_span_where_it_is() -> None:
    bars = timeline_figure(SIM.trace).data
    shown = {(row, start_ms) for bar in bars for row, start_ms in zip(bar.y, bar.base, strict=True)}
    assert shown == {(f"{span.stream} ", span.start_s / 1e-3) for span in SIM.trace.spans}


def test_spans_too_short_to_see_are_drawn_together() -> None:
    spans = tuple(
        Span(name="f", chip=0, stream="compute", start_s=i, end_s=i + 1, kind="vector")
        for i in range(10 * MAX_BARS)
    )
    (bars,) = timeline_figure(Trace(name="t", spans=spans)).data
    assert MAX_BARS / 2 < len(bars.x) <= 2 * MAX_BARS
    assert sum(bars.x) == pytest.approx(10 * MAX_BARS * 1000)


def test_memory_over_time_keeps_its_peak() -> None:
    # The peak lasts too short to be seen at its own place.
    end = Span(name="f", chip=0, stream="compute", start_s=0, end_s=1e3)
    counters = tuple(
        Counter(name=MEMORY, chip=0, at_s=at_s, value=value)
        for at_s, value in ((0.0, 1e9), (0.01, 5e9), (0.02, 2e9), (500.0, 3e9))
    )
    trace = Trace(name="t", spans=(end,), counters=counters)
    (line,) = memory_figure(trace, 1e12).data
    assert list(zip(line.x, line.y, strict=True)) == [(0, 5), (500e3, 3)]


def test_the_memory_of_a_simulation_starts_with_the_step() -> None:
    (line,) = memory_figure(SIM.trace, SIM.capacity_bytes).data
    assert max(line.y) == SIM.memory.peak_bytes / 1e9
    assert line.x[0] == 0


def test_the_comparison_leaves_out_what_does_not_fit() -> None:
    bars = comparison_figure([SIM, replace(OTHER, capacity_bytes=1e3)]).data
    assert all(list(bar.y) == ["tiny "] for bar in bars)
    assert bars[0].text == (format(SIM.step_s * 1e3, ",.4g"),)
