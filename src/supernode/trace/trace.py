"""Trace: what happened on each chip, and when."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from supernode.errors import VerifyError
from supernode.trace.rows import Rows

Stream = Literal["compute", "comm", "host", "copy"]
COMPUTE: Stream = "compute"
COMM: Stream = "comm"
HOST: Stream = "host"
COPY: Stream = "copy"
STREAMS: tuple[Stream, ...] = (COMPUTE, COMM, HOST, COPY)

MEMORY, PLANNED_MEMORY = "memory in use (bytes)", "memory planned (bytes)"
"""Counters: what a chip holds, and where a real step was measured what its plan had foretold."""

Floats = NDArray[np.float64]
T = TypeVar("T")
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


SPAN: Mapping[str, float | str] = {"start_s": 0.0, "end_s": 0.0, "task": ""}
COUNTER: Mapping[str, float | str] = {"at_s": 0.0, "value": 0.0}
"""The fields in which spans of one kind differ, and counters, all empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The spans and counters of one step, stored by column.

    Where all chips do the same, chip 0 stands for them, and `meta` says for how many. `meta` is
    the full configuration that led here: program, layout, machine, versions.
    """

    name: str
    spans: Sequence[Span] = field(hash=False)
    counters: Sequence[Counter] = field(default=(), hash=False)
    meta: Mapping[str, Json] = field(default_factory=dict[str, Json], hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.spans, Rows):
            object.__setattr__(self, "spans", Rows.of(SPAN, self.spans))
        if not isinstance(self.counters, Rows):
            object.__setattr__(self, "counters", Rows.of(COUNTER, self.counters))

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
        kinds = (*columns(self.spans).kinds, *columns(self.counters).kinds)
        return tuple(sorted({kind.chip for kind in kinds}))

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of a chip; those of the host and of copies where something is on them."""
        used = {COMPUTE, COMM, *(kind.stream for kind in columns(self.spans).kinds)}
        return tuple(stream for stream in STREAMS if stream in used)

    @property
    def end_s(self) -> float:
        """When the last span ends."""
        return float(columns(self.spans).columns["end_s"].max(initial=0.0))

    def busy_s(self, chip: int, stream: Stream) -> float:
        """How long `stream` of `chip` was at work; spans that overlap count once."""
        return self._busy_s(chip, {stream})

    def exposed_comm_s(self, chip: int) -> float:
        """How long `chip` communicated, or copied from or to other places, and computed nothing."""
        return self._busy_s(chip, {COMPUTE, COMM, COPY}) - self._busy_s(chip, {COMPUTE})

    def _busy_s(self, chip: int, streams: set[Stream]) -> float:
        rows = columns(self.spans)
        wanted = [kind.chip == chip and kind.stream in streams for kind in rows.kinds]
        chosen = np.array(wanted, dtype=bool)[rows.which]
        return covered_s(rows.columns["start_s"][chosen], rows.columns["end_s"][chosen])


def columns(rows: Sequence[T]) -> Rows[T]:
    """The rows of a Trace as they are stored."""
    assert isinstance(rows, Rows)
    return rows


def verify_trace(trace: Trace) -> Trace:
    """`trace` itself when every time is finite, none is negative and no span ends before it starts.

    Raises:
        VerifyError: with the span or counter.
    """
    spans, counters = columns(trace.spans), columns(trace.counters)
    start_s, end_s = spans.columns["start_s"], spans.columns["end_s"]
    fine = (start_s >= 0) & (start_s <= end_s) & (end_s < math.inf)
    if (at := _first_bad(fine)) is not None:
        span = trace.spans[at]
        wrong = f"span {span.name} runs from {span.start_s} s to {span.end_s} s"
        raise VerifyError(wrong, where=f"chip {span.chip}, {span.stream}, {span.module}")
    strange = [kind for kind in spans.kinds if kind.stream not in STREAMS]
    if strange:
        raise VerifyError(f"span {strange[0].name} is on an unknown stream {strange[0].stream!r}")
    at_s, values = counters.columns["at_s"], counters.columns["value"]
    fine = (at_s >= 0) & (at_s < math.inf) & np.isfinite(values)
    if (at := _first_bad(fine)) is not None:
        counter = trace.counters[at]
        wrong = f"counter {counter.name} is {counter.value} at {counter.at_s} s"
        raise VerifyError(wrong, where=f"chip {counter.chip}")
    return trace


def _first_bad(fine: NDArray[np.bool_]) -> int | None:
    return None if fine.all() else int(fine.argmin())


def covered_s(start_s: Floats, end_s: Floats) -> float:
    """How long at least one of these lasts, each from a start to an end."""
    if not len(start_s):
        return 0.0
    order = np.argsort(start_s, kind="stable")
    start_s, end_s = start_s[order], np.maximum.accumulate(end_s[order])
    first = np.concatenate(([True], start_s[1:] > end_s[:-1]))  # of what touches each other
    last = np.concatenate((first[1:], [True]))
    return math.fsum(end_s[last] - start_s[first])
