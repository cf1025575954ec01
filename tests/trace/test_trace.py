import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernode.errors import VerifyError
from supernode.trace import Counter, Span, Trace, from_chrome, verify_trace

times = st.floats(0, 1e4, allow_nan=False)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start, end = sorted((draw(times), draw(times)))
    return Span(
        name=draw(st.text(max_size=5)),
        chip=draw(st.integers(0, 3)),
        stream=draw(st.sampled_from(["compute", "comm"])),
        start_s=start,
        end_s=end,
        module=draw(st.text(max_size=5)),
        phase="forward",
        flops=draw(st.floats(0, 1e18)),
        bytes=draw(st.floats(0, 1e12)),
        kind="matmul",
    )


counters = st.builds(
    Counter, name=st.just("memory"), chip=st.integers(0, 3), at_s=times, value=st.floats(0, 1e12)
)
traces = st.builds(
    Trace,
    name=st.text(max_size=5),
    spans=st.lists(spans(), max_size=6).map(tuple),
    counters=st.lists(counters, max_size=4).map(tuple),
    meta=st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3),
)


def span(start_s: float, end_s: float, stream: str = "compute", chip: int = 0) -> Span:
    return Span(name="aten.mm", chip=chip, stream=stream, start_s=start_s, end_s=end_s)


@given(traces)
def test_a_trace_comes_back_from_chrome_json_bit_for_bit(trace: Trace) -> None:
    assert from_chrome(trace.to_chrome()) == trace


def test_chrome_events_have_what_the_viewers_need() -> None:
    first = Span(
        name="aten.mm",
        chip=3,
        stream="comm",
        start_s=1e-3,
        end_s=3e-3,
        module="layers.0.mlp",
        phase="backward",
    )
    memory = Counter(name="memory", chip=3, at_s=0.5, value=7.0)
    document = json.loads(Trace(name="t", spans=(first,), counters=(memory,)).to_chrome())
    events = {event["ph"]: event for event in document["traceEvents"]}
    assert set(events) == {"M", "X", "C"}
    assert events["X"]["ts"] == pytest.approx(1000)
    assert events["X"]["dur"] == pytest.approx(2000)
    assert (events["X"]["pid"], events["X"]["tid"]) == (3, 1)
    assert events["X"]["args"]["module"] == "layers.0.mlp"
    assert events["C"]["args"] == {"value": 7.0}
    named = [e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"]
    assert named == ["compute", "comm"]


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (0.0, math.inf)]
)
def test_impossible_times_are_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(VerifyError, match=r"span aten\.mm runs from"):
        verify_trace(Trace(name="t", spans=(span(start_s, end_s),)))


def test_an_impossible_counter_is_refused() -> None:
    bad = Counter(name="memory", chip=0, at_s=0.0, value=math.nan)
    with pytest.raises(VerifyError, match="counter memory is nan"):
        verify_trace(Trace(name="t", spans=(), counters=(bad,)))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"otherData": {"format": "other"}}'])
def test_a_text_that_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(VerifyError):
        from_chrome(text)


def test_busy_time_counts_overlap_once() -> None:
    trace = Trace(name="t", spans=(span(0, 2), span(1, 3), span(5, 6), span(0, 9, chip=1)))
    assert trace.busy_s(0, "compute") == 4
    assert trace.busy_s(0, "comm") == 0
    assert trace.end_s == 9
    assert trace.chips == (0, 1)


def test_exposed_communication_is_what_no_compute_covers() -> None:
    spans = (span(0, 2), span(1, 4, "comm"), span(6, 7), span(6.5, 6.75, "comm"))
    assert Trace(name="t", spans=spans).exposed_comm_s(0) == 2
