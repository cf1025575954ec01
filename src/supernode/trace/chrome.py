"""A Trace in the Trace Event Format that chrome://tracing and ui.perfetto.dev open, and back.

A chip is a process, a stream a thread of it. The viewers count in microseconds, which would lose
the last bits of a time; so each event also carries its times in seconds, in fields that the
viewers pass over, and `from_chrome(to_chrome(trace)) == trace`.

**Source:** "Trace Event Format", Google, 2016: phases X (complete), C (counter), M (metadata).
"""

import json
from collections.abc import Iterator
from typing import Any

from supernode.errors import VerifyError
from supernode.trace.trace import STREAMS, Counter, Json, Span, Stream, Trace, verify_trace
from supernode.units import MICRO

FORMAT = "supernode-trace-1"


def to_chrome(trace: Trace) -> str:
    """One line of JSON."""
    events = [*_names(trace), *map(_span_out, trace.spans), *map(_counter_out, trace.counters)]
    document = {
        "displayTimeUnit": "ms",
        "otherData": {"format": FORMAT, "name": trace.name, "meta": dict(trace.meta)},
        "traceEvents": events,
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def from_chrome(text: str) -> Trace:
    """The Trace that `to_chrome` wrote.

    Raises:
        VerifyError: the text is not such a document, or a time in it is impossible.
    """
    try:
        document = json.loads(text)
        about = document["otherData"]
        if about["format"] != FORMAT:
            raise VerifyError(f"expected format {FORMAT}, got {about['format']!r}")
        events = document["traceEvents"]
        trace = Trace(
            name=about["name"],
            spans=[_span_in(event) for event in events if event["ph"] == "X"],
            counters=[_counter_in(event) for event in events if event["ph"] == "C"],
            meta=about["meta"],
        )
        return verify_trace(trace)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise VerifyError(f"not a saved Trace: {error!r}") from error


def _names(trace: Trace) -> Iterator[dict[str, Json]]:
    """The names the viewers show; every chip with its streams, compute on top."""
    for chip in trace.chips:
        yield _metadata("process_name", chip, 0, {"name": f"chip {chip}"})
        for stream in trace.streams:
            thread = STREAMS.index(stream)
            yield _metadata("thread_name", chip, thread, {"name": stream})
            yield _metadata("thread_sort_index", chip, thread, {"sort_index": thread})


def _metadata(name: str, chip: int, thread: int, args: dict[str, Json]) -> dict[str, Json]:
    return {"ph": "M", "name": name, "pid": chip, "tid": thread, "args": args}


def _span_out(span: Span) -> dict[str, Json]:
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.kind,
        "pid": span.chip,
        "tid": STREAMS.index(span.stream),
        "ts": span.start_s / MICRO,
        "dur": span.duration_s / MICRO,
        "args": {
            "module": span.module,
            "phase": span.phase,
            "flops": span.flops,
            "bytes": span.bytes,
            **({"task": span.task} if span.task else {}),
        },
        "start_s": span.start_s,
        "end_s": span.end_s,
    }


def _span_in(event: dict[str, Any]) -> Span:
    stream: Stream = STREAMS[event["tid"]]
    return Span(
        name=event["name"],
        kind=event["cat"],
        chip=event["pid"],
        stream=stream,
        start_s=event["start_s"],
        end_s=event["end_s"],
        **event["args"],
    )


def _counter_out(counter: Counter) -> dict[str, Json]:
    return {
        "ph": "C",
        "name": counter.name,
        "pid": counter.chip,
        "tid": 0,
        "ts": counter.at_s / MICRO,
        "args": {"value": counter.value},
        "at_s": counter.at_s,
    }


def _counter_in(event: dict[str, Any]) -> Counter:
    value = event["args"]["value"]
    return Counter(name=event["name"], chip=event["pid"], at_s=event["at_s"], value=value)
