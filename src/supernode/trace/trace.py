"""Trace: what happened on each chip, and when."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from supernode.errors import VerifyError

Stream = Literal["compute", "comm", "host", "copy"]
COMPUTE: Stream = "compute"
COMM: Stream = "comm"
HOST: Stream = "host"
COPY: Stream = "copy"
STREAMS: tuple[Stream, ...] = (COMPUTE, COMM, HOST, COPY)

MEMORY, PLANNED_MEMORY = "memory in use (bytes)", "memory planned (bytes)"
"""Counters: what a chip holds, and where a real step was measured what its plan had foretold."""

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One op on one stream of one chip, from `start_s` to `end_s` after the step began.

    `name` is the op (`aten.mm`), `module` and `phase` say where in the model it stands. `flops`
    are floating-point operations; `bytes` are those moved: to and from the chip's memory on the
    compute stream, sent to other chips on the comm stream. `kind` is what did the work: `matmul`,
    `vector`, or the collective. `task` is that of a pipeline, `forward 3 of chunk 1`.
    """

    name: str
    chip: int
    stream: Stream
    start_s: float
    end_s: float
    module: str = ""
    phase: str = ""
    flops: float = 0.0
    bytes: float = 0.0
    kind: str = ""
    task: str = ""

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A quantity of one chip that holds from `at_s` on, such as the bytes of memory in use."""

    name: str
    chip: int
    at_s: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The spans and counters of one step.

    Where all chips do the same, chip 0 stands for them, and `meta` says for how many. `meta` is
    the full configuration that led here: program, layout, machine, versions.
    """

    name: str
    spans: tuple[Span, ...]
    counters: tuple[Counter, ...] = ()
    meta: Mapping[str, Json] = field(default_factory=dict[str, Json], hash=False)

    def to_chrome(self) -> str:
        """The text that chrome://tracing and ui.perfetto.dev open; `from_chrome` reads it back."""
        from supernode.trace.chrome import to_chrome

        return to_chrome(self)

    def peak(self, counter: str, chip: int) -> float:
        """The highest that a counter of a chip gets, 0 if it has none: `trace.peak(MEMORY, 0)`."""
        found = (c.value for c in self.counters if c.chip == chip and c.name == counter)
        return max(found, default=0.0)

    @property
    def chips(self) -> tuple[int, ...]:
        """The chips that appear, in order."""
        return tuple(sorted({s.chip for s in self.spans} | {c.chip for c in self.counters}))

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of a chip; those of the host and of copies where something is on them."""
        used = {COMPUTE, COMM, *(span.stream for span in self.spans)}
        return tuple(stream for stream in STREAMS if stream in used)

    @property
    def end_s(self) -> float:
        """When the last span ends."""
        return max((span.end_s for span in self.spans), default=0.0)

    def busy_s(self, chip: int, stream: Stream) -> float:
        """How long `stream` of `chip` was at work; spans that overlap count once."""
        return _length(self._busy(chip, stream))

    def exposed_comm_s(self, chip: int) -> float:
        """How long `chip` communicated, or copied from or to other places, and computed nothing."""
        compute = self._busy(chip, COMPUTE)
        comm = self._busy(chip, COMM) + self._busy(chip, COPY)
        return _length(_merged(compute + comm)) - _length(compute)

    def _busy(self, chip: int, stream: Stream) -> list[tuple[float, float]]:
        spans = (s for s in self.spans if s.chip == chip and s.stream == stream)
        return _merged([(s.start_s, s.end_s) for s in spans])


def verify_trace(trace: Trace) -> Trace:
    """`trace` itself when every time is finite, none is negative and no span ends before it starts.

    Raises:
        VerifyError: with the span or counter.
    """
    for span in trace.spans:
        if not 0.0 <= span.start_s <= span.end_s < math.inf:
            wrong = f"span {span.name} runs from {span.start_s} s to {span.end_s} s"
            raise VerifyError(wrong, where=f"chip {span.chip}, {span.stream}, {span.module}")
        if span.stream not in STREAMS:
            raise VerifyError(f"span {span.name} is on an unknown stream {span.stream!r}")
    for counter in trace.counters:
        if not (0.0 <= counter.at_s < math.inf and math.isfinite(counter.value)):
            wrong = f"counter {counter.name} is {counter.value} at {counter.at_s} s"
            raise VerifyError(wrong, where=f"chip {counter.chip}")
    return trace


def _merged(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _length(intervals: list[tuple[float, float]]) -> float:
    return math.fsum(end - start for start, end in intervals)
